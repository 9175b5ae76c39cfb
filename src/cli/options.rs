//! The values of all options, as plain data.
//!
//! Nothing here acts: the values were checked for form when they were parsed,
//! and `agent` hands each module the few that it needs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::manifest::InteractiveMode;
use crate::settings::{AccelChoice, Hold, LoginTemplate, ProxyChoice, RedirectKind};

/// Defines a struct together with its blank value, in which every field has
/// the `Default` of its type. The defaults that operators see are texts in the
/// table and are parsed like any other value, so that help cannot lie.
macro_rules! plain {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        pub struct $name { $($(#[$doc])* pub $field: $type,)* }

        impl $name {
            /// Every field zero, empty or absent.
            pub(super) fn blank() -> $name {
                $name { $($field: Default::default(),)* }
            }
        }
    };
}

plain! {
    /// Every setting of the agent. [`Options::default`] has the documented
    /// defaults.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Options {
        /// Controllers as they were written, `[<priority>=]<url>` or a directory.
        pub controllers: Vec<String>,

        /// The toolchain that machines are bootstrapped with.
        pub toolchain_name: String,
        /// Its number, 1 to 9.
        pub toolchain_num: u8,
        /// Its version, sent as `toolchain-version`; absent: what machines report.
        pub toolchain_ver: Option<String>,
        /// A lock file that is held during bootstraps.
        pub toolchain_lock: Option<PathBuf>,
        /// Its id; empty: machines are not bootstrapped again when it changes.
        pub toolchain_id: String,
        /// Which of several agents for this toolchain we are, from 1.
        pub instance: u16,
        /// The maximum number of guests that run on the host; 0: no limit.
        pub instance_max: usize,
        /// The name in requests; absent: the host name.
        pub agent_name: Option<String>,

        /// Pause between turns in which there was nothing to do.
        pub poll_interval: Duration,
        /// The connection timeout.
        pub connect_timeout: Duration,
        /// The timeout of a whole exchange with a controller.
        pub request_timeout: Duration,
        /// Further attempts to connect to a controller.
        pub request_retries: u32,
        /// Leave out what controllers of 2017 do not know.
        pub legacy_request: bool,
        /// Certificates of the authorities to trust; absent: the host's bundle.
        pub ca_file: Option<PathBuf>,
        /// Proxies for controllers.
        pub proxy: ProxyChoice,
        /// RSA private key in PEM.
        pub auth_key: Option<PathBuf>,
        /// The `openssl` program, by name or path.
        pub openssl: PathBuf,
        /// Options for every call of it.
        pub openssl_options: Vec<String>,
        /// Repository fingerprints that replace those of the task.
        pub trust: Vec<String>,
        /// The maximum size of a result manifest, in bytes.
        pub result_limit: u64,
        /// How long an undelivered result is kept.
        pub result_expiry: Duration,

        /// The kinds of tasks that are taken.
        pub interactive: InteractiveMode,
        /// The way for users to guests; absent: that to the display.
        pub interactive_login: Option<LoginTemplate>,
        /// The address of the display of the first instance; absent: a socket.
        pub interactive_vnc: Option<SocketAddr>,
        /// The file with the password of the display.
        pub vnc_password: Option<PathBuf>,

        /// Directory of the machine volumes.
        pub machines: PathBuf,
        /// Versions that a bootstrapped machine has to report, by package.
        pub bootstrap_versions: Vec<(String, String)>,
        /// Space below which no work is asked for.
        pub min_free: Space,
        /// Root of the TFTP directories.
        pub tftp: PathBuf,
        /// The bridge that taps are attached to.
        pub bridge: String,
        /// How guests' requests reach our server.
        pub redirect: RedirectKind,

        /// The QEMU program, by name or path.
        pub qemu: PathBuf,
        /// KVM or emulation.
        pub accel: AccelChoice,
        /// Processors of a guest.
        pub cpu: u32,
        /// Memory of a guest, in kB.
        pub ram: u64,
        /// Memory of the auxiliary machines of a task, in kB; 0: none are offered.
        pub auxiliary_ram: u64,
        /// From the start of auxiliary machines to the last environment.
        pub bootstrap_auxiliary: Duration,
        /// Memory for all guests of the host, in kB; absent: most of it.
        pub host_ram: Option<u64>,
        /// Processors for all guests of the host; absent: all.
        pub host_cpu: Option<u32>,
        /// The user of QEMU; `None` is the agent's own.
        pub vm_user: Option<String>,
        /// From the start of a guest to its first request, bootstrapping.
        pub bootstrap_startup: Duration,
        /// From its first request to its manifest.
        pub bootstrap_timeout: Duration,
        /// From its manifest to power off.
        pub bootstrap_shutdown: Duration,
        /// Further attempts when it never made a request.
        pub bootstrap_retries: u32,
        /// Reboots of a guest that a bootstrap allows.
        pub bootstrap_reboots: u32,
        /// From the start of a guest to its first request, building.
        pub build_startup: Duration,
        /// From its first request to its result.
        pub build_timeout: Duration,
        /// Further attempts when it never made a request.
        pub build_retries: u32,
        /// How long a guest may be idle; zero: until its other limits.
        pub idle_limit: Duration,
        /// How long a guest that went wrong is kept for inspection.
        pub hold: Hold,
        /// The number of failed guests whose evidence is kept.
        pub keep_failures: usize,
        /// The bytes of the states of failed guests that are kept; absent: none is.
        pub keep_state: Option<u64>,
        /// `--warm`: patterns of the names of machines.
        pub warm: Vec<String>,
        /// `--warm-age`.
        pub warm_age: Duration,

        /// Directory for what must survive a reboot: results, journal.
        pub state: PathBuf,
        /// Directory for locks, sockets and the status.
        pub run_dir: PathBuf,
        /// Prometheus text file to keep up to date.
        pub metrics: Option<PathBuf>,
        /// Whether a task of lower priority is paused where that is possible.
        pub pauses: bool,
        /// The number of host failures in a row after which no work is asked for.
        pub breaker: u32,
        /// Level of diagnostics, 0 to 6.
        pub verbose: u8,
        /// Diagnostics and notifications for systemd.
        pub systemd_daemon: bool,

        /// Whether to go on for ever.
        pub turns: Turns,
        /// The manifest to print in place of the end of a turn.
        pub dump: Option<Dump>,
        /// Skip the guest when bootstrapping.
        pub fake_bootstrap: bool,
        /// Skip the guest when building.
        pub fake_build: bool,
        /// A machine header to use in place of the machines; `-`: stdin.
        pub fake_machine: Option<PathBuf>,
        /// A task to perform in place of asking; `-`: stdin.
        pub fake_request: Option<PathBuf>,
    }
}

/// An amount of space: a share of the file system, a number of bytes, or the
/// smaller of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Hundredths of the file system.
    pub percent: Option<u8>,
    /// Bytes.
    pub bytes: Option<u64>,
}

impl Space {
    /// The amount in bytes on a file system of `total` bytes.
    pub fn of(self, total: u64) -> u64 {
        let share = self.percent.map(|percent| total / 100 * u64::from(percent));
        match (share, self.bytes) {
            (Some(share), Some(bytes)) => share.min(bytes),
            (Some(amount), None) | (None, Some(amount)) => amount,
            (None, None) => 0,
        }
    }
}

/// How many turns to make, and what a busy lock means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turns {
    /// Until a signal; a busy lock is an error.
    #[default]
    Endless,
    /// One; when another agent holds the lock: exit 0.
    Once,
    /// One; when another agent holds the lock: exit 75.
    OnceOrBusy,
}

/// The manifest to print in place of the end of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dump {
    /// The task, before it is performed.
    Task,
    /// The result, in place of uploading it.
    Result,
}
