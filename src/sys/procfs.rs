//! Numbers of a process in /proc (proc(5)).

use std::fs;
use std::time::Duration;

/// The length of a clock tick in these files: `USER_HZ` is 100 on all architectures with
/// Rust's musl targets.
const TICK: Duration = Duration::from_millis(10);

/// The number in field `field` of `stat`, from 3.
fn stat(pid: u32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain blanks and brackets; what follows the last does not.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(field - 3)?.parse().ok()
}

/// The memory of the host in kB (`meminfo`).
#[must_use]
pub fn total_memory_kb() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB"))?;
    total.trim().parse().ok()
}

/// When a process started, in clock ticks since boot.
#[must_use]
pub fn start_time(pid: u32) -> Option<u64> {
    stat(pid, 22)
}

/// The processor time of all threads of a process, in user and in kernel mode.
#[must_use]
pub fn processor_time(pid: u32) -> Option<Duration> {
    let ticks = stat(pid, 14)?.checked_add(stat(pid, 15)?)?;
    TICK.checked_mul(u32::try_from(ticks).ok()?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::process::Process;
    use super::*;

    #[test]
    fn the_processor_time_of_a_process_grows_with_its_work() {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        let process = Process::spawn(command, &[], None).unwrap();
        let pid = process.pid();
        let before = processor_time(pid).unwrap();
        while processor_time(pid).unwrap() < before + Duration::from_millis(50) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(start_time(pid).is_some());
        assert_eq!(processor_time(0), None);
    }
}
