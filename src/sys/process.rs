//! Children that die with us: spawning, pidfds, signals without pid races.
//!
//! A pid may be given to another process as soon as its former owner is reaped;
//! a pidfd (pidfd_open(2), Linux 5.3) never names another process, and poll(2)
//! says when its process has ended.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid, setsid};

use super::poll::{self, readable_within};

/// Another user for a child to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// All supplementary groups; those of the agent are dropped.
    pub groups: Vec<u32>,
}

/// The time for a killed child to end when its value is dropped. A child in
/// uninterruptible sleep (state D) ends when its I/O completes.
const KILL: Duration = Duration::from_secs(3);

/// Children that were killed and had not ended when their values went away. They
/// need no more than to be reaped; until then their pids are nobody else's.
static LEFT: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn left() -> MutexGuard<'static, Vec<Pid>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps those of them that have ended.
fn reap() {
    left().retain(|pid| {
        let status = waitpid(*pid, Some(WaitPidFlag::WNOHANG));
        status == Ok(WaitStatus::StillAlive)
    });
}

/// A child process, killed and reaped when this value goes away. One that does
/// not end within a few seconds is left to end in its own time.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    exit: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` in a session of its own, so that no signal of our
    /// terminal reaches it, with no signal blocked, and with these descriptors
    /// open under the numbers that they have here.
    ///
    /// The kernel kills the child when **the calling thread** ends
    /// (prctl(2), `PR_SET_PDEATHSIG`), however it ends: call this from a thread
    /// that lives as long as the child should.
    ///
    /// # Errors
    ///
    /// Those of fork(2), execve(2), setresuid(2) and pidfd_open(2); `ESRCH` if
    /// we were killed meanwhile.
    pub fn spawn(
        mut command: Command,
        keep: &[BorrowedFd<'_>],
        user: Option<&Credentials>,
    ) -> io::Result<Process> {
        reap();
        let parent = pidfd_open(std::process::id())?;
        let keep: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
        let user = user.map(|user| {
            let groups: Vec<Gid> = user.groups.iter().map(|g| Gid::from_raw(*g)).collect();
            (Uid::from_raw(user.uid), Gid::from_raw(user.gid), groups)
        });
        let prepare = move || -> io::Result<()> {
            setsid()?;
            if let Some((uid, gid, groups)) = &user {
                // Groups first: a user without privileges cannot drop them.
                setgroups(groups)?;
                setresgid(*gid, *gid, *gid)?;
                setresuid(*uid, *uid, *uid)?;
            }
            // A change of user clears this setting, so it comes after.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // If the parent ended before the call above, no signal will come.
            let mut ended = [PollFd::new(parent.as_fd(), PollFlags::POLLIN)];
            if nix::poll::poll(&mut ended, PollTimeout::ZERO)? > 0 {
                return Err(Errno::ESRCH.into());
            }
            // A child inherits the mask, and the agent blocks its own signals.
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
            for fd in &keep {
                // SAFETY: the caller of `spawn` holds these descriptors open.
                let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes system calls only; it
        // neither allocates nor takes a lock.
        unsafe { command.pre_exec(prepare) };
        let mut child = command.spawn()?;
        match pidfd_open(child.id()) {
            Ok(pidfd) => Ok(Process {
                child,
                pidfd,
                exit: None,
            }),
            Err(error) => {
                // Not reaped yet, so the pid is still the child's.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// The same as [`Process::spawn`], and the child is the first process of a PID
    /// namespace (pid_namespaces(7)): when it ends, the kernel kills all that descends
    /// from it. Without the privilege for that the child is an ordinary one.
    pub fn spawn_family(
        command: Command,
        keep: &[BorrowedFd<'_>],
        user: Option<&Credentials>,
    ) -> io::Result<Process> {
        let own = File::open("/proc/thread-self/ns/pid")?;
        let apart = unshare(CloneFlags::CLONE_NEWPID).is_ok();
        let started = Process::spawn(command, keep, user);
        if apart {
            // The next child is an ordinary one again.
            setns(own, CloneFlags::CLONE_NEWPID)?;
        }
        started
    }

    /// The pid; meaningful to others only until the process is reaped.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The reading end of the child's standard error, if it was made a pipe and
    /// was not taken yet.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// The reading end of the child's standard output, likewise.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Sends a signal. A process that has ended already is a success.
    ///
    /// # Errors
    ///
    /// `EPERM`, if the child changed its user beyond our reach.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_signal(self.pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// How the process ended, if it has; reaps it. Does not wait.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait()?;
        }
        Ok(self.exit)
    }
}

/// Readable when the process has ended.
impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit.is_some() {
            return;
        }
        let _ = self.signal(Signal::SIGKILL);
        let _ = readable_within(self.as_fd(), KILL);
        if let Ok(None) = self.try_wait()
            && let Ok(pid) = self.pid().try_into()
        {
            left().push(Pid::from_raw(pid));
        }
    }
}

/// The least limit of a program's messages on standard error, in bytes.
const MESSAGES: usize = 4096;

/// A descriptor that ends a wait, and a function that is called before each wait:
/// it returns the end of the wait, or an error that ends the program.
pub type Also<'a> = (
    BorrowedFd<'a>,
    &'a mut dyn FnMut() -> io::Result<Option<Instant>>,
);

/// Runs a program to its end: writes `input` to it and reads at most `limit` bytes of
/// output. The program is killed if it takes longer than `time`.
///
/// # Errors
///
/// Those of [`Process::spawn`]; `TimedOut`; too much output; the error of `also`.
pub fn run(
    mut command: Command,
    input: &[u8],
    limit: usize,
    time: Duration,
    mut also: Option<Also<'_>>,
) -> io::Result<Output> {
    let deadline = Instant::now() + time;
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    piped.stderr(Stdio::piped());
    let mut process = Process::spawn(command, &[], None)?;
    let child = &mut process.child;
    let pipe = |fd: Option<OwnedFd>| fd.map(non_blocking).transpose();
    let mut stdin = pipe(child.stdin.take().map(OwnedFd::from))?;
    let mut outputs = [
        pipe(child.stdout.take().map(OwnedFd::from))?,
        pipe(child.stderr.take().map(OwnedFd::from))?,
    ];
    let mut texts = [Vec::new(), Vec::new()];
    let mut rest = input;
    loop {
        if rest.is_empty() {
            // The program reads to the end of its input.
            stdin = None;
        }
        if let (Some(status), [None, None]) = (process.try_wait()?, &outputs) {
            let [stdout, stderr] = texts;
            return Ok(Output {
                status,
                stdout,
                stderr,
            });
        }
        let mut until = deadline;
        let mut set = Vec::new();
        if let Some((fd, check)) = &mut also {
            until = check()?.map_or(deadline, |until| until.min(deadline));
            set.push(PollFd::new(*fd, PollFlags::POLLIN));
        }
        if Instant::now() >= deadline {
            let what = format!("not done after {} seconds", time.as_secs_f32());
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        let pipe = stdin.as_ref();
        set.extend(pipe.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
        let pipes = outputs.iter().flatten();
        set.extend(pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        if process.exit.is_none() {
            set.push(PollFd::new(process.pidfd.as_fd(), PollFlags::POLLIN));
        }
        poll::wait(&mut set, Some(until))?;
        drop(set);
        if let Some(pipe) = &mut stdin {
            match pipe.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // The program has closed its input; its messages say why.
                Err(_) => stdin = None,
            }
        }
        for ((pipe, text), limit) in outputs
            .iter_mut()
            .zip(&mut texts)
            .zip([limit, limit.max(MESSAGES)])
        {
            if let Some(file) = pipe
                && is_at_end(file, text, limit)?
            {
                *pipe = None;
            }
        }
    }
}

fn non_blocking(pipe: OwnedFd) -> io::Result<File> {
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(pipe.into())
}

/// Reads what is there. Returns whether that was the end.
fn is_at_end(pipe: &mut File, text: &mut Vec<u8>, limit: usize) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(count) if text.len() + count > limit => {
                return Err(io::Error::other(format!(
                    "more than {limit} bytes of output"
                )));
            }
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A descriptor for the process `pid`, close-on-exec (pidfd_open(2)). Whoever
/// did not fork the process has to check afterwards that it is the one meant.
///
/// # Errors
///
/// `ESRCH` if there is no such process, `EMFILE`, `ENOSYS` before Linux 5.3.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers; touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel made this descriptor for us and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to the process of a pidfd (pidfd_send_signal(2)).
///
/// # Errors
///
/// `ESRCH` if it has ended and was reaped, `EPERM`.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    // SAFETY: a null siginfo makes the kernel fill in what kill(2) would.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as libc::c_int,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    // bash: dash does not know descriptors above 9.
    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/bash");
        command.arg("-c").arg(script).stdin(Stdio::null());
        command
    }

    fn end(child: &mut Process) -> ExitStatus {
        assert!(readable_within(child.as_fd(), Duration::from_secs(20)).unwrap());
        child.try_wait().unwrap().unwrap()
    }

    #[test]
    fn the_end_of_a_child_can_be_waited_for() {
        let mut child = Process::spawn(shell("exit 7"), &[], None).unwrap();
        let exit = end(&mut child);
        assert_eq!(exit.code(), Some(7));
        // Reaped: a signal to it is no error and reaches nobody.
        child.signal(Signal::SIGKILL).unwrap();
    }

    #[test]
    fn dropping_kills_and_reaps() {
        let child = Process::spawn(shell("sleep 60"), &[], None).unwrap();
        let pid = child.pid();
        drop(child);
        assert_eq!(
            pidfd_open(pid).unwrap_err().raw_os_error(),
            Some(libc::ESRCH)
        );
    }

    #[test]
    fn a_descriptor_is_handed_over_under_its_number() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let script = format!("read line <&{0}; echo got $line >&{0}", theirs.as_raw_fd());
        let mut child = Process::spawn(shell(&script), &[theirs.as_fd()], None).unwrap();
        drop(theirs);
        ours.write_all(b"it\n").unwrap();
        let mut answer = String::new();
        ours.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "got it\n");
        assert!(end(&mut child).success());
    }

    #[test]
    fn signals_that_we_block_are_not_blocked_in_a_child() {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).unwrap();
        let mut child = Process::spawn(shell("kill -TERM $$; sleep 60"), &[], None).unwrap();
        let exit = end(&mut child);
        assert_eq!(exit.signal(), Some(libc::SIGTERM));
    }

    #[test]
    fn a_program_that_is_missing_is_an_error_and_not_a_child() {
        let command = Command::new("/nonexistent/qemu");
        let error = Process::spawn(command, &[], None).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let child = std::thread::spawn(|| Process::spawn(shell("sleep 60"), &[], None).unwrap());
        let mut child = child.join().unwrap();
        let exit = end(&mut child);
        assert_eq!(exit.signal(), Some(libc::SIGKILL));
    }
}
