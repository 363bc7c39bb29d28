# The tools that the scripts beside it need in addition to Rust's stable toolchain. Each has one exact version, and is installed if it
# is missing. Source it from the repository's root.

# A command that fails in `$(…)` ends the script.
shopt -s inherit_errexit

# rustdoc's JSON format changes between nightlies, and cargo-public-api reads that of some.
nightly_date=2026-05-20
nightly_commit=e50aa6fba

# Prints the program of version $2 of the cargo subcommand $1, which is kept in target/tools/.
cargo_tool() {
    local name="$1" version="$2" folder="$PWD/target/tools/$1-$2"
    if ! [ -x "$folder/bin/$name" ]; then
        printf 'Building %s %s\n' "$name" "$version" >&2
        # Not optimised, because optimising takes longer than all runs of the tool.
        env -u RUSTFLAGS -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=0 \
            cargo install --quiet --locked --debug "$name@$version" --root "$folder" >&2
    fi
    printf '%s\n' "$folder/bin/$name"
}

# Prints the name of the nightly toolchain, which rustup keeps. Not `rustc +name`: rustup may install what that names.
nightly() {
    local name
    for name in nightly "nightly-$nightly_date"; do
        if is_nightly "$name"; then
            printf '%s\n' "$name"
            return
        fi
    done
    rustup toolchain install "nightly-$nightly_date" --profile minimal --no-self-update >&2
    is_nightly "nightly-$nightly_date" || {
        printf 'nightly-%s is not of commit %s\n' "$nightly_date" "$nightly_commit" >&2
        return 1
    }
    printf 'nightly-%s\n' "$nightly_date"
}

is_nightly() {
    [[ "$(rustup run "$1" rustc --version 2>/dev/null)" == *"($nightly_commit "* ]]
}
