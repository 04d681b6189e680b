#include "io/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "io/child_process.h"
#include "tests/io/dead_process.h"
#include "tests/temporary_folder.h"
#include "wavroute/error.h"

namespace wavroute {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::get;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::message_of;
using testing::names_in;
using testing::put;
using testing::TemporaryFolder;
using ::testing::UnorderedElementsAre;
using ::testing::UnorderedElementsAreArray;

TEST(AtomicFile, ReplacesTheOldContentAndLeavesNothingElse) {
  const TemporaryFolder folder;
  put(folder / "a", "old");
  write_file_atomic(folder / "a", "new");
  EXPECT_EQ(get(folder / "a"), "new");
  EXPECT_THAT(names_in(folder.path()), ElementsAre("a"));
}

TEST(AtomicFile, WithoutCommitTheOldContentStands) {
  const TemporaryFolder folder;
  put(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("new");
    EXPECT_EQ(get(folder / "a"), "old");
  }
  EXPECT_EQ(get(folder / "a"), "old");
  EXPECT_THAT(names_in(folder.path()), ElementsAre("a"));
}

TEST(AtomicFile, TwoWritersOfOneNameDoNotMix) {
  const TemporaryFolder folder;
  AtomicFile first(folder / "a"), second(folder / "a");
  first.write("first");
  second.write("second");
  first.commit();
  EXPECT_EQ(get(folder / "a"), "first");
  second.commit();
  EXPECT_EQ(get(folder / "a"), "second");
}

TEST(AtomicFile, ReplacesALinkAndLeavesItsTarget) {
  const TemporaryFolder folder;
  put(folder / "target", "old");
  fs::create_symlink("target", folder / "link");
  write_file_atomic(folder / "link", "new");
  EXPECT_FALSE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(get(folder / "link"), "new");
  EXPECT_EQ(get(folder / "target"), "old");
}

TEST(FollowedLink, IsTheTargetOfALinkAndEveryOtherPathItself) {
  const TemporaryFolder folder;
  fs::create_symlink("target", folder / "link");
  EXPECT_EQ(followed_link(folder / "link").filename(), "target");
  EXPECT_EQ(followed_link("no/such/file"), "no/such/file");
  EXPECT_EQ(followed_link(""), "");
}

TEST(AtomicFile, TakesTheLongestNameThatThereIs) {
  const TemporaryFolder folder;
  std::string name(255, 'x');
  name.replace(46, 4, "\xf0\x9f\x8c\x8a");  // a character across the end of the label
  write_file_atomic(folder / name, "content");
  EXPECT_EQ(get(folder / name), "content");
}

TEST(AtomicFile, RemovesWhatADeadProcessLeftOfTheSameName) {
  const TemporaryFolder folder;
  const std::string other = testing::name_of_a_dead_process("b");
  put(folder / testing::name_of_a_dead_process("a"), "half");
  put(folder / other, "half");
  write_file_atomic(folder / "a", "whole");
  EXPECT_THAT(names_in(folder.path()), UnorderedElementsAre("a", other));
}

TEST(AtomicFile, RefusesWhatIsNoRegularFile) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of<UserError>([&] { write_file_atomic(folder.path(), ""); }),
              AllOf(HasSubstr("Is a directory"), HasSubstr(folder.path().string())));
  // Root could rename a file over it.
  EXPECT_THAT(message_of<UserError>([] { write_file_atomic("/dev/null", ""); }),
              HasSubstr("given a device"));
  EXPECT_FALSE(fs::is_regular_file("/dev/null"));
}

TEST(AtomicFile, AnUnusableFolderIsAUserErrorThatNamesThePath) {
  const TemporaryFolder folder;
  put(folder / "file", "");
  EXPECT_THAT(message_of<UserError>([&] { write_file_atomic(folder / "file" / "x", ""); }),
              AllOf(HasSubstr("Not a directory"), HasSubstr((folder / "file/x").string())));
  EXPECT_THAT(message_of<UserError>([&] { write_file_atomic(folder / "none" / "x", ""); }),
              AllOf(HasSubstr("No such file"), HasSubstr((folder / "none/x").string())));
}

TEST(MakeFolders, MakesAllParentsAndTakesThoseThatExist) {
  const TemporaryFolder folder;
  make_folders(folder / "a/b/c/");
  EXPECT_TRUE(fs::is_directory(folder / "a/b/c"));
  EXPECT_NO_THROW(make_folders(folder / "a/b/c"));
}

TEST(MadeFolders, AreRemovedAgainWhereTheyAreEmpty) {
  const TemporaryFolder folder;
  make_folders(folder / "own");
  for (const char* path : {"own", "own/a/b", "own/a/b/", "own"}) {
    const bool is_new = std::string(path) != "own";
    const MadeFolders made(folder / path);
    EXPECT_EQ(made.made(), is_new);
    EXPECT_TRUE(fs::is_directory(folder / path));
  }
  EXPECT_THAT(names_in(folder / "own"), IsEmpty());
  put(folder / "file", "text");
  EXPECT_THROW(MadeFolders(folder / "file/a/b"), UserError);
  {
    const MadeFolders made(folder / "own/a/b");
    put(folder / "own/a/file", "text");
  }
  EXPECT_THAT(names_in(folder / "own/a"), ElementsAre("file"));
}

TEST(MakeFolders, RefusesAFileInTheWayAndAFolderThatNobodyMayWrite) {
  const TemporaryFolder folder;
  put(folder / "file", "");
  EXPECT_THAT(message_of<UserError>([&] { make_folders(folder / "file"); }),
              HasSubstr("Not a directory"));
  EXPECT_THAT(message_of<UserError>([&] { make_folders(folder / "file/run"); }),
              HasSubstr("Not a directory"));
  EXPECT_THAT(message_of<UserError>([] { make_folders("/proc/run"); }), HasSubstr("/proc/run"));
}

TEST(ReadFile, GivesEveryByteOfALargeFile) {
  const TemporaryFolder folder;
  std::string content(200001, 'x');
  content[100000] = '\0';
  content.back() = 'y';
  put(folder / "a", content);
  EXPECT_EQ(read_file(folder / "a"), content);
}

TEST(ReadFile, AMissingFileOrAFolderIsAUserError) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of<UserError>([&] { (void)read_file(folder / "none"); }),
              AllOf(HasSubstr("No such file"), HasSubstr((folder / "none").string())));
  EXPECT_THAT(message_of<UserError>([&] { (void)read_file(folder.path()); }),
              HasSubstr("Is a directory"));
}

// A pipe without a writer would block forever, /dev/zero has no end.
TEST(ReadFile, RefusesWhatIsNoRegularFile) {
  const TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0666), 0);
  for (const fs::path& path : {folder / "pipe", fs::path("/dev/zero")}) {
    for (const auto& read : {std::function([&] { (void)read_file(path); }),
                             std::function([&] { (void)sha256_file(path); }),
                             std::function([&] { MappedFile{path}; })}) {
      EXPECT_THAT(message_of<UserError>(read),
                  AllOf(HasSubstr("expected a regular file"), HasSubstr(path.string())));
    }
  }
}

TEST(ReadFile, HoldsNoMoreThanItWasAllowedTo) {
  const TemporaryFolder folder;
  put(folder / "five", "12345");
  EXPECT_EQ(read_file(folder / "five", 5), "12345");
  EXPECT_THAT(message_of<UserError>([&] { (void)read_file(folder / "five", 4); }),
              AllOf(HasSubstr("at most 4 bytes, given 5"), HasSubstr((folder / "five").string())));
  fs::resize_file(folder / "five", uint64_t{1} << 40);  // sparse
  EXPECT_THROW((void)read_file(folder / "five", 1 << 20), UserError);
  // A file that has no size until it is read.
  EXPECT_THROW((void)read_file("/proc/self/maps", 100), UserError);
}

// Reading address 0 of a process is an input/output error.
TEST(ReadFile, ABrokenDeviceIsAFailureThatNamesThePath) {
  EXPECT_THAT(message_of<Failure>([] { (void)read_file("/proc/self/mem"); }),
              AllOf(HasSubstr("/proc/self/mem: Input/output error"), HasSubstr("dmesg")));
}

TEST(IsThere, SaysNoOnlyWhereNothingIs) {
  const TemporaryFolder folder;
  put(folder / "file", "");
  fs::create_symlink("none", folder / "dangling");
  fs::create_symlink("loop", folder / "loop");
  EXPECT_TRUE(is_there(folder.path()));
  EXPECT_FALSE(is_there(folder / "none"));
  EXPECT_FALSE(is_there(folder / "file/below"));
  EXPECT_FALSE(is_there(folder / "dangling"));
  EXPECT_THAT(message_of<UserError>([&] { (void)is_there(folder / "loop"); }),
              HasSubstr((folder / "loop").string()));
}

TEST(ListFolder, GivesAllNamesSortedAndNoneOfAFolderThatIsNotThere) {
  const TemporaryFolder folder;
  EXPECT_THAT(list_folder(folder / "none"), IsEmpty());
  for (const char* name : {"b", ".a", "c"}) put(folder / name, "");
  EXPECT_THAT(list_folder(folder.path()), ElementsAre(".a", "b", "c"));
  EXPECT_THAT(message_of<UserError>([&] { (void)list_folder(folder / "b"); }),
              HasSubstr("Not a directory"));
}

TEST(DetachFile, MakesAFileOfItsOwnOfALinkOrASecondName) {
  const TemporaryFolder folder;
  put(folder / "target", "lines");
  fs::create_symlink("target", folder / "link");
  fs::create_hard_link(folder / "target", folder / "second");
  fs::create_symlink("none", folder / "dangling");
  for (const char* name : {"link", "second"}) {
    detach_file(folder / name);
    EXPECT_EQ(get(folder / name), "lines");
    put(folder / name, "more");
    EXPECT_EQ(get(folder / "target"), "lines") << name;
  }
  detach_file(folder / "dangling");
  EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(folder / "dangling")));
  detach_file(folder / "nothing");
  EXPECT_FALSE(fs::exists(folder / "nothing"));
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0666), 0);
  EXPECT_THROW(detach_file(folder / "pipe"), UserError);
}

TEST(MappedFile, GivesTheContentEvenAfterTheNameIsReplaced) {
  const TemporaryFolder folder;
  put(folder / "a", "old");
  MappedFile file(folder / "a");
  write_file_atomic(folder / "a", "new");
  const MappedFile moved = std::move(file);
  EXPECT_EQ(moved.text(), "old");
  EXPECT_EQ(MappedFile(folder / "a").text(), "new");
}

TEST(MappedFile, TakesAnEmptyFileAndRefusesFoldersAndDevices) {
  const TemporaryFolder folder;
  put(folder / "empty", "");
  EXPECT_THAT(MappedFile(folder / "empty").bytes(), IsEmpty());
  EXPECT_THAT(message_of<UserError>([&] { MappedFile{folder.path()}; }),
              HasSubstr("Is a directory"));
  EXPECT_THAT(message_of<UserError>([] { MappedFile{"/dev/zero"}; }), HasSubstr("given a device"));
}

// The digests of FIPS 180-4's examples.
TEST(Sha256, GivesTheStandardsExamples) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, PiecesAndFilesGiveTheDigestOfTheWhole) {
  const TemporaryFolder folder;
  const std::string text = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  const std::string digest = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
  put(folder / "a", text);
  Sha256 sha;
  sha.update(text.substr(0, 7));
  sha.update("");
  sha.update(text.substr(7));
  EXPECT_EQ(sha.hex(), digest);
  EXPECT_EQ(sha256_file(folder / "a"), digest);
}

TEST(RemoveTree, RemovesFoldersButNotWhatTheirLinksPointTo) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "tree/deep");
  put(folder / "kept", "");
  fs::create_symlink(folder / "kept", folder / "tree/deep/link");
  remove_tree(folder / "tree");
  remove_tree(folder / "tree");  // a missing path is not an error
  EXPECT_THAT(names_in(folder.path()), ElementsAre("kept"));
}

TEST(RemoveStaleTemporaries, TakesOurFormsOfDeadProcessesOfThisVeryPlaceAlone) {
  const TemporaryFolder folder;
  const std::string dead = testing::name_of_a_dead_process("step_3");
  ASSERT_TRUE(dead.starts_with(".wavroute-tmp-step_3-"));
  const std::string alive = temporary_name("step_3"),
                    foreign = testing::name_of_another_place("step_3");
  // The number of a live process, but with another start time: the number was reused.
  std::string reused = alive;
  reused.insert(reused.rfind('-', reused.rfind('-') - 1) + 1, "9");
  const std::string pid = std::to_string(testing::pid_of_a_dead_process());
  std::vector<std::string> kept = {alive, foreign, "step_3", ".tmp-x", ".tmp-step_3-" + pid};
  // Names that differ from ours in one place each.
  for (const std::string& part :
       {"x" + dead, dead + "x", dead + "-", dead.substr(1), dead.substr(0, dead.rfind('-')),
        ".wavroute-tmp-" + pid, ".wavroute-tmp" + dead.substr(dead.find("-step_3") + 7)}) {
    kept.push_back(part);
  }
  fs::create_directories(folder / dead / "inside");
  put(folder / reused, "");
  for (const std::string& name : kept) put(folder / name, "");
  EXPECT_THAT(remove_stale_temporaries(folder.path(), "step_4"), IsEmpty());
  EXPECT_TRUE(fs::exists(folder / dead));  // of another label
  EXPECT_THAT(remove_stale_temporaries(folder.path()), ElementsAre(folder / foreign));
  EXPECT_THAT(names_in(folder.path()), UnorderedElementsAreArray(kept));
}

}  // namespace
}  // namespace wavroute
