#include "io/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "temporary_folder.h"
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

TEST(AtomicFile, WritesThroughALinkAndKeepsTheLink) {
  const TemporaryFolder folder;
  put(folder / "target", "old");
  fs::create_symlink("target", folder / "link");
  write_file_atomic(folder / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(get(folder / "target"), "new");
}

TEST(AtomicFile, RefusesWhatIsNoRegularFile) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of<UserError>([&] { write_file_atomic(folder.path(), ""); }),
              AllOf(HasSubstr("Is a directory"), HasSubstr(folder.path().string())));
  // Root could rename a file over it.
  EXPECT_THAT(message_of<UserError>([] { write_file_atomic("/dev/null", ""); }),
              HasSubstr("found a device"));
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
  EXPECT_THAT(message_of<UserError>([] { MappedFile{"/dev/zero"}; }), HasSubstr("found a device"));
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
  remove_tree(folder / "tree");  // nothing there is no error
  EXPECT_THAT(names_in(folder.path()), ElementsAre("kept"));
}

TEST(RemoveStaleTemporaries, TakesThoseOfDeadProcessesAlone) {
  const TemporaryFolder folder;
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  const std::string dead = ".tmp-step_3-" + std::to_string(child);
  const std::string parents = ".tmp-step_3-" + std::to_string(::getppid());
  fs::create_directories(folder / dead / "inside");
  for (const std::string& name : {parents, std::string("step_3"), std::string(".tmp-x")}) {
    put(folder / name, "");
  }
  put(folder / temporary_name("mine"), "");
  remove_stale_temporaries(folder.path());
  EXPECT_THAT(names_in(folder.path()), UnorderedElementsAre(parents, "step_3", ".tmp-x"));
}

TEST(FileLock, KeepsASecondHolderOutAndNamesTheFirst) {
  const TemporaryFolder folder;
  const FileLock lock(folder.path());
  // A second descriptor of the same process is refused as another process would be.
  EXPECT_THAT(message_of<UserError>([&] { FileLock{folder.path()}; }),
              AllOf(HasSubstr(folder.path().string()),
                    HasSubstr("process " + std::to_string(::getpid()) + " ")));
}

TEST(FileLock, KeepsAnotherProcessOut) {
  const TemporaryFolder folder;
  const FileLock lock(folder.path());
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      const FileLock second(folder.path());
    } catch (const UserError&) {
      ::_exit(7);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST(FileLock, IsFreeAgainAfterItsHolder) {
  const TemporaryFolder folder;
  put(folder / ".lock", "99999999999");  // of a longer process number
  { const FileLock lock(folder.path()); }
  const FileLock lock(folder.path());
  EXPECT_EQ(get(folder / ".lock"), std::to_string(::getpid()));
}

}  // namespace
}  // namespace wavroute
