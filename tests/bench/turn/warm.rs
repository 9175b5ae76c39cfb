//! A task that starts cold and one that starts warm, emulated: with the small guest and
//! each client of TFTP, and with a machine of Debian, if `make machine` has made it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::rows::Row;
use super::scene::agent;
use super::support::host::Host;
use super::support::{Process, guest, program, run};

/// The place of the small guest's second volume in its disk.
const VOLUME: u64 = 25 << 20;

/// The name of the guest with a machine of Debian.
const DEBIAN: &str = "Debian";

pub fn rows() {
    if let Err(why) = guest::image() {
        eprintln!("skipped: bench turn warm: {why}");
        return;
    }
    for (name, ram) in [("512 MB", "524288"), ("2 GB", "2097152")] {
        let Some(host) = host() else { return };
        host.add_bootstrapped("m", "");
        let compared = compare(&host, "m", &["--ram", ram], 5);
        compared.rows(name);
        compared.memory(name);
    }
    for (name, client) in [
        ("curl", "curl -sS -o \"$2\" tftp://196.254.111.222/\"$1\""),
        (
            "tftp-hpa",
            "tftp -m binary 196.254.111.222 -c get \"$1\" \"$2\"",
        ),
    ] {
        let Some(host) = host() else { return };
        host.add_bootstrapped("m", "");
        if !install_client(&host.machine("m/m-default/disk.img"), client) {
            continue;
        }
        let compared = compare(&host, "m", &["--ram", "524288"], 3);
        compared.task_row(&format!("512 MB, {name}"));
    }
    debian();
}

/// A host with room for templates: one is made where all of the memory has room.
fn host() -> Option<Host> {
    run("ip link delete br1");
    let host = Host::of_size(8192)?;
    // Its own address would change with its ports.
    run("ip link set br1 address 02:00:00:00:00:01");
    Some(host)
}

/// Has the worker on the small guest's disk fetch files by another client, `get` being
/// its command. The programs are those of this host.
fn install_client(disk: &Path, get: &str) -> bool {
    let name = get.split(' ').next().unwrap();
    let Some(file) = program(name) else {
        eprintln!("skipped: bench turn warm: no program {name}");
        return false;
    };
    let at = disk.with_extension("volume");
    fs::create_dir(&at).unwrap();
    let (disk, shown) = (disk.display(), at.display());
    run(&format!("mount -o loop,offset={VOLUME} {disk} {shown}"));
    let to = at.join("client");
    fs::create_dir(&to).unwrap();
    let libraries = run(&format!("ldd {}", file.display()));
    let paths = libraries.split_whitespace().filter(|w| w.starts_with('/'));
    for path in paths.chain([file.to_str().unwrap()]) {
        fs::copy(path, to.join(Path::new(path).file_name().unwrap())).unwrap();
    }
    let linker = "/build/client/ld-linux-x86-64.so.2 --library-path /build/client";
    let line = format!("get () {{ {linker} /build/client/{get}; }}");
    let worker = at.join("worker");
    let text = fs::read_to_string(&worker).unwrap();
    let is_get = |line: &&str| line.starts_with("get () ");
    let old = text.lines().find(is_get).unwrap();
    fs::write(&worker, text.replacen(old, &line, 1)).unwrap();
    run(&format!("umount {shown}"));
    fs::remove_dir(at).unwrap();
    true
}

/// The machine of Debian that `make machine` makes.
fn debian() {
    let name = "x86_64-linux_debian_12-gcc_12";
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/machine");
    let disk = made.join(format!("{name}/{name}-1.0/disk.img"));
    if !disk.exists() || program("dnsmasq").is_none() {
        eprintln!("skipped: bench turn warm: the Debian guest: needs make machine, and dnsmasq");
        return;
    }
    let Some(host) = host() else { return };
    let mut dhcp = Command::new(program("dnsmasq").unwrap());
    dhcp.args("--keep-in-foreground --port=0 --interface=br1 --bind-interfaces".split(' '))
        .args(["--user=root", "--pid-file="])
        .arg("--dhcp-range=10.195.0.10,10.195.0.250")
        .arg(format!(
            "--dhcp-leasefile={}",
            host.path("leases").display()
        ))
        .stdin(Stdio::null());
    let _dhcp = Process(dhcp.spawn().unwrap());
    let revision = host.revision("debian", 0);
    let (from, to) = (disk.display(), revision.display());
    run(&format!("cp --sparse=always {from} {to}"));
    // It builds what it finds in archives, and reports an error without one.
    fs::write(host.path("tftp/toolchain/default/checksums"), "").unwrap();
    for (name, ram) in [("512 MB", "524288"), ("2 GB", "2097152")] {
        let words = &[
            "--ram",
            ram,
            "--bootstrap-startup",
            "1200",
            "--build-startup",
            "1200",
        ];
        let compared = compare(&host, "debian", words, 3);
        let name = format!("{DEBIAN}, {name}");
        compared.rows(&name);
        compared.memory(&name);
    }
}

/// A cold start, and a warm one.
struct Compared {
    cold: Start,
    warm: Start,
    /// Of a turn each.
    cold_memory: Resident,
    warm_memory: Resident,
    template: PathBuf,
}

/// The medians of so many turns of each kind.
fn compare(host: &Host, machine: &str, words: &[&str], rounds: usize) -> Compared {
    let warm_words = &[words, &["--warm"]].concat();
    let turn = |name: String, words: &[&str]| {
        host.task(&name, machine, "target: x86_64-linux-gnu\n");
        (begin(host, words), name)
    };
    let median = |kind: &str, words: &[&str]| {
        let starts = (0..rounds).map(|n| {
            let (child, name) = turn(format!("{kind}-{n}"), words);
            let start = follow(child);
            assert!(host.result(&name).is_some(), "no result of {name}");
            start
        });
        Start::median(&starts.collect::<Vec<_>>())
    };
    let memory = |kind: &str, words: &[&str]| watch(turn(format!("{kind}-memory"), words).0);
    // A bootstrap, if there was none, and a template that is not of another size.
    drain(begin(host, words));
    let (cold, cold_memory) = (median("cold", words), memory("cold", words));
    // The pause after another template.
    let _ = fs::remove_file(host.path("state/default-1/templates"));
    drain(begin(host, warm_words));
    let (warm, warm_memory) = (median("warm", warm_words), memory("warm", warm_words));
    Compared {
        cold,
        warm,
        cold_memory,
        warm_memory,
        template: host.machine(&format!("{machine}/{machine}-default-@warm.1")),
    }
}

impl Compared {
    fn row(&self, name: &str, what: &str, of: fn(&Start) -> Duration) -> Row {
        Row::ms(&format!("warm start, {name}: {what}"), of(&self.warm))
            .beside_ms("a cold start", of(&self.cold))
    }

    /// The times until the guest has its task.
    fn task_row(&self, name: &str) {
        let row = self.row(name, "the guest has its task", |start| start.has_task);
        if !name.starts_with(DEBIAN) {
            return row.under(500.0).done();
        }
        let met = row.ours < 500.0 && row.ratio().is_some_and(|ratio| ratio >= 10.0);
        row.goal("< 500 ms, 10 times faster", met).done();
    }

    fn rows(&self, name: &str) {
        let runs = self.row(name, "processors run", |start| start.runs);
        runs.under(150.0).done();
        self.task_row(name);
        let posted = self.row(name, "the result is posted", |start| start.posted);
        posted.under(700.0).done();
    }

    /// Memory, and the disk space of the template.
    fn memory(&self, name: &str) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let row = |what: &str, of: fn(&Resident) -> u64| {
            Row::new(
                &format!("warm start, {name}: {what}"),
                "MiB",
                mib(of(&self.warm_memory)),
            )
            .beside("a cold start", mib(of(&self.cold_memory)))
        };
        row("resident memory of QEMU", |resident| resident.all).done();
        let own = row("of it, not mapped from the template", |resident| {
            resident.all - resident.template
        });
        let met = own.ratio().is_some_and(|ratio| ratio >= 2.0);
        own.goal("at most half", met).done();
        let size = |file: &str| fs::metadata(self.template.join(file)).unwrap().blocks() * 512;
        let row =
            |what: &str, bytes| Row::new(&format!("warm start, {name}: {what}"), "MiB", mib(bytes));
        let (ram, state) = (size("warm.ram"), size("warm.state"));
        row("template on disk", ram + state).done();
        row("of it, not the guest's memory", state)
            .under(1.0)
            .done();
    }
}

/// Times since the task was received.
#[derive(Clone, Copy)]
struct Start {
    runs: Duration,
    has_task: Duration,
    posted: Duration,
}

impl Start {
    /// Each figure's median.
    fn median(starts: &[Start]) -> Start {
        let of = |of: fn(&Start) -> Duration| super::rows::median(starts.iter().map(of).collect());
        Start {
            runs: of(|start| start.runs),
            has_task: of(|start| start.has_task),
            posted: of(|start| start.posted),
        }
    }
}

/// Starts a turn.
fn begin(host: &Host, words: &[&str]) -> Child {
    let mut command = Command::new(agent());
    command
        .args(host.agent(&["--once", "--verbose", "4"]).get_args())
        .args(words)
        .arg(host.path("controller"))
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits for its end, and returns what it said.
fn drain(mut child: Child) -> String {
    let mut said = String::new();
    let stderr = child.stderr.take().unwrap();
    BufReader::new(stderr).read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    said
}

/// Times of a turn, by what the agent says and when it says it.
fn follow(mut child: Child) -> Start {
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut received, mut start) = (None, [None; 3]);
    let mut said = String::new();
    for line in lines.map_while(Result::ok) {
        let now = Instant::now();
        let mut mark = |index: usize, is_it: bool| {
            if is_it {
                start[index].get_or_insert(now);
            }
        };
        mark(0, line.contains("the guest runs: true"));
        mark(1, line.contains("Sent {"));
        mark(2, line.starts_with("info: ") && line.contains(" (session "));
        if line.contains("claim: mv ") {
            received.get_or_insert(now);
        }
        said.push_str(&line);
        said.push('\n');
    }
    assert!(child.wait().unwrap().success(), "{said}");
    let since = |at: Option<Instant>| match (at, received) {
        (Some(at), Some(received)) => at.duration_since(received),
        _ => panic!("no start: {said}"),
    };
    Start {
        runs: since(start[0]),
        has_task: since(start[1]),
        posted: since(start[2]),
    }
}

/// Resident memory of a guest's QEMU, in bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Resident {
    all: u64,
    /// Of it, pages of the template's file: the page cache has them once for all guests.
    template: u64,
}

/// The most that it is in a turn.
fn watch(child: Child) -> Resident {
    let pid = child.id();
    let ended = std::thread::spawn(move || drain(child));
    let mut most = Resident::default();
    while !ended.is_finished() {
        most = most.max(resident(pid).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(5));
    }
    ended.join().unwrap();
    most
}

/// That of the one process that an agent starts (proc(5), `smaps`).
fn resident(agent: u32) -> Option<Resident> {
    let children = fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).ok()?;
    let pid = children.split_whitespace().next()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let (mut resident, mut is_template) = (Resident::default(), false);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let bytes = words.next().and_then(|n| n.parse::<u64>().ok());
        let bytes = bytes.unwrap_or_default() * 1024;
        match name {
            "Rss:" => {
                resident.all += bytes;
                resident.template += if is_template { bytes } else { 0 };
            }
            // Pages that the guest has changed are its own.
            "Anonymous:" if is_template => resident.template -= bytes,
            _ if !name.ends_with(':') => is_template = line.contains("-@warm."),
            _ => {}
        }
    }
    Some(resident)
}
