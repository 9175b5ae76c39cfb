//! The state of the process that it has from its parent.

use nix::libc::rlim_t;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::stat::{Mode, umask};

/// The file mode creation mask: only the owner writes, and can connect to sockets.
const UMASK: u32 = 0o022;

/// Descriptors that the agent needs, with some to spare.
const DESCRIPTORS: rlim_t = 1024;

/// Limits that are raised as far as the parent allows.
const LIMITS: &[Resource] = &[
    Resource::RLIMIT_AS,
    Resource::RLIMIT_CPU,
    Resource::RLIMIT_DATA,
    Resource::RLIMIT_FSIZE,
    Resource::RLIMIT_NPROC,
];

/// Sets umask, signals and resource limits to what the agent and its children need.
/// Standard descriptors that are closed were opened on `/dev/null` before, by std.
pub fn normalize() {
    umask(Mode::from_bits_truncate(UMASK));
    // None of the calls below fails with these arguments.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    for number in [
        // If it is ignored, the kernel reaps children, and their ends are never seen.
        Signal::SIGCHLD,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        // SAFETY: the default disposition runs no handler.
        let _ = unsafe { signal(number, SigHandler::SigDfl) };
    }
    for resource in LIMITS {
        raise(*resource, rlim_t::MAX);
    }
    raise(Resource::RLIMIT_NOFILE, DESCRIPTORS);
}

/// Raises a soft limit to `wanted`, or to the hard limit if that is lower.
fn raise(resource: Resource, wanted: rlim_t) {
    if let Ok((soft, hard)) = getrlimit(resource) {
        let _ = setrlimit(resource, soft.max(hard.min(wanted)), hard);
    }
}
