// OpenSSL's SHA-256 itself, not its table of digests (EVP): of a linked archive that takes 4 MB.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

#include <array>

#include "io/file.h"
#include "wavroute/error.h"

namespace wavroute {

struct Sha256::Context {
  SHA256_CTX digest;
};

namespace {

void check(int succeeded) {
  if (succeeded != 1) throw Failure(expectation("a SHA-256 digest", "none by OpenSSL"));
}

}  // namespace

Sha256::Sha256() : context_(std::make_unique<Context>()) { check(SHA256_Init(&context_->digest)); }
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(std::span<const std::byte> bytes) {
  check(SHA256_Update(&context_->digest, bytes.data(), bytes.size()));
}

std::string Sha256::hex() {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  check(SHA256_Final(digest.data(), &context_->digest));
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const unsigned char byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 sha;
  sha.update(bytes);
  return sha.hex();
}

std::string sha256_hex(std::string_view text) { return sha256_hex(std::as_bytes(std::span(text))); }

}  // namespace wavroute
