# What the scripts in cross/ have in common: the table of targets, and the tools, which are kept outside of the
# repository in ${XDG_CACHE_HOME:-~/.cache}/edgepush-cross. Sourced.
# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is used by those who source it

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=${XDG_CACHE_HOME:-$HOME/.cache}/edgepush-cross
# shellcheck source=tests/harness/install.sh
source "$here/../../tests/harness/install.sh"
cache=$work
built=$top/target/cross # two compilers must not share a target folder

fail() {
  echo "$0: $1" >&2
  exit 1
}

# As install.sh calls it. Here nothing is optional.
skip() {
  fail "$1 (see $log)"
}

say() {
  echo "== $*" >&2
}

# Sets `target`, `deb`, `size_max` and `emulator` from the name of a board or of a target.
find_target() {
  local name=$1 board=$top/boards/$1.toml
  [[ ! -e $board ]] || name=$(sed -n 's/^target = "\(.*\)"$/\1/p' "$board")
  read -r target deb size_max emulator < <(grep "^$name " "$top/cross/targets") ||
    fail "neither a board of boards/ nor a target of cross/targets: $1"
}

# `arm-unknown-linux-musleabihf` as cargo's environment variables spell it.
in_capitals() {
  tr 'a-z-' 'A-Z_' <<< "$1"
}

install_zig() {
  have_python_venv || install_packages python3-venv
  install_python_packages
  [[ :$PATH: == *:$venv/bin:* ]] || export PATH=$venv/bin:$PATH
  export ZIG_GLOBAL_CACHE_DIR=$cache/zig CARGO_ZIGBUILD_CACHE_DIR=$cache/zigbuild
}

# Sets RUSTC to a compiler that can build for `target`, and `std` to what cargo needs for its standard library.
#
# The library is built here where its sources are: without the code that prints stack traces, which a stripped program
# cannot use, it is smaller; and on 32-bit ARM its clock goes on after 2038. Rustup's own is taken if the target
# is installed and the sources are not (`rustup component add rust-src`).
find_compiler() {
  local sysroot=''
  ! have rustc || sysroot=$(rustc --print sysroot)
  # cargo's -Z options, in a released compiler
  std=('-Zbuild-std=std,panic_abort' -Zbuild-std-features=optimize_for_size)
  if [[ -e $sysroot/lib/rustlib/src/rust/library/Cargo.lock ]]; then
    RUSTC=$sysroot/bin/rustc
  elif [[ -d $sysroot/lib/rustlib/$target ]]; then
    RUSTC=$sysroot/bin/rustc
    std=()
  elif have apt-get; then
    install_debian_rust
  else
    fail "no standard library for $target: rustup component add rust-src"
  fi
  export RUSTC RUSTC_BOOTSTRAP=1
  export RUST_LIBC_UNSTABLE_MUSL_V1_2_3=1 # 64-bit times on 32-bit boards; musl has them since that version
}

# Debian's compiler with the sources of its library, unpacked into a folder of its own: as installed packages they are
# in the way of rustup, and of themselves for another architecture.
install_debian_rust() {
  have cargo || install_packages cargo-web
  local version
  version=$(candidate rust-web-src)
  if [[ ! -e $cache/rust-$version/bin/rustc ]]; then
    quietly apt-get update || skip "apt-get cannot be used"
    version=$(candidate rust-web-src)
    [[ $version ]] || fail "Debian has no rust-web-src here: rustup component add rust-src"
    say "unpacking rustc $version"
    unpack_debian_rust "$cache/rust-$version"
  fi
  RUSTC=$cache/rust-$version/bin/rustc
}

candidate() {
  apt-cache policy "$1" | sed -n 's/^  Candidate: \([0-9].*\)/\1/p'
}

# The wrapper comes last: it says that all is there.
unpack_debian_rust() {
  local root=$1/root libraries folder
  rm -rf "$1"
  mkdir -p "$1/bin" "$root"
  # The compiler itself is a library, in a package that has its version in its name.
  mapfile -t libraries < <(needed_libraries libstd-rust-web-dev)
  unpack "$root" rustc-web rust-web-src libstd-rust-web-dev "${libraries[@]}"
  folder=$(echo "$root"/usr/lib/*-linux-gnu)
  ! LD_LIBRARY_PATH=$folder ldd "$root/usr/bin/rustc" | grep 'not found' ||
    fail "Debian's rustc lacks a library"
  cat > "$1/bin/rustc.new" << END
#!/bin/sh
LD_LIBRARY_PATH=$folder exec $root/usr/bin/rustc "\$@"
END
  chmod +x "$1/bin/rustc.new"
  mv "$1/bin/rustc.new" "$1/bin/rustc"
}

# The libraries that a package needs, those that they need included, and that this machine has not.
needed_libraries() {
  local package
  apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$1" |
    grep '^lib' | grep -v -e ':' -e "^$1\$" | sort -u | while read -r package; do
      dpkg-query --show --showformat '${db:Status-Status}' "$package" 2> /dev/null | grep -qx installed || echo "$package"
    done
}

# Downloads Debian packages and unpacks them into a folder.
unpack() {
  local folder=$1 downloads
  shift
  downloads=$(mktemp -d)
  (cd "$downloads" && quietly apt-get download "$@") || skip "apt-get cannot download $*"
  for package in "$downloads"/*.deb; do
    quietly dpkg-deb --extract "$package" "$folder" || skip "$package cannot be unpacked"
  done
  rm -rf "$downloads"
}
