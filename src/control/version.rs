//! What runs: version, commit, and the I/O driver that this kernel offers.

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit of this build, set by the build as `PORTCULLIS_COMMIT`; see src/build.rs.
pub const COMMIT: &str = match option_env!("PORTCULLIS_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// The text of `-V`.
#[must_use]
pub fn describe() -> String {
    format!("portcullis {VERSION} (commit {COMMIT}, I/O driver {})", driver())
}

/// The best driver that this kernel lets this process use, by trying: containers forbid io_uring by seccomp, and
/// `kernel.io_uring_disabled` by sysctl.
#[must_use]
pub fn driver() -> &'static str {
    if io_uring::IoUring::new(2).is_ok() { "io_uring" } else { "epoll" }
}
