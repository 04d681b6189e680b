# 64-bit ARM by Debian's cross compiler; programs run under qemu-user. Libraries of that architecture
# are expected in CMAKE_PREFIX_PATH (./dev arm puts them there).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
