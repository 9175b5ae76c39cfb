//! The TFTP server and the clients that people have: GET and PUT, from an empty
//! file to one of 100 MB, each octet compared.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bbot_agent::tftp::{Map, ServerSettings};

use crate::support::tftp::{Scratch, Server, pattern};
use crate::support::{program, skip};

/// Around a block, around the wrap of block numbers, and large.
const SIZES: [usize; 7] = [0, 1, 511, 512, 513, 100_000, 512 * 65_536 + 1];
const LARGE: usize = 100_000_000;

/// One client: how it reads and how it writes.
struct Client<'a> {
    program: PathBuf,
    /// Arguments, parted by spaces, with tabs for spaces within them; `{host}`, `{port}`, `{name}` and `{file}` stand for what to
    /// transfer. Empty if the client cannot.
    get: &'a str,
    put: &'a str,
}

/// Runs a client in `directory`; a hanging one is killed.
fn run(program: &Path, arguments: &str, directory: &Path) -> Output {
    let child = Command::new(program)
        .args(arguments.split(' ').map(|word| word.replace('\t', " ")))
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id().to_string();
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if waiting.recv_timeout(Duration::from_secs(240)).is_err() {
            let _ = Command::new("kill").args(["-9", &id]).status();
        }
    });
    let output = child.wait_with_output().unwrap();
    let _ = done.send(());
    watchdog.join().unwrap();
    output
}

impl Client<'_> {
    /// Every size there and back.
    fn check(&self, sizes: &[usize]) {
        let scratch = Scratch::new();
        let map = Map::new().get(scratch.get()).put(scratch.put());
        let server = Server::mapped(map, ServerSettings::default());
        let local = scratch.get().join("../local");
        fs::create_dir(&local).unwrap();
        let fill = |line: &str, name: &str, file: &str| {
            line.replace("{host}", "127.0.0.1")
                .replace("{port}", &server.address.port().to_string())
                .replace("{name}", name)
                .replace("{file}", file)
        };
        for &size in sizes {
            let content = pattern(size);
            scratch.file("there", &content);
            fs::write(local.join("mine"), &content).unwrap();
            let start = Instant::now();
            if !self.get.is_empty() {
                let output = run(&self.program, &fill(self.get, "there", "got"), &local);
                // Some clients make no file of nothing.
                let got = fs::read(local.join("got")).unwrap_or_default();
                assert!(
                    got == content && output.status.success(),
                    "{}: GET {size}: got {}: {output:?}",
                    self.program.display(),
                    got.len()
                );
                let _ = fs::remove_file(local.join("got"));
            }
            let read = start.elapsed();
            if !self.put.is_empty() {
                let output = run(&self.program, &fill(self.put, "back", "mine"), &local);
                let put = scratch.uploaded("back");
                assert!(
                    put.as_ref() == Some(&content) && output.status.success(),
                    "{}: PUT {size}: got {:?}: {output:?}",
                    self.program.display(),
                    put.map(|put| put.len())
                );
                fs::remove_file(scratch.put().join("back")).unwrap();
            }
            if size > 1_000_000 {
                let (program, wrote) = (self.program.display(), start.elapsed() - read);
                eprintln!("{program}: {size} octets: GET {read:.2?}, PUT {wrote:.2?}");
            }
        }
    }
}

fn client<'a>(name: &str, get: &'a str, put: &'a str) -> Option<Client<'a>> {
    let Some(program) = program(name) else {
        skip(&format!("no {name}"));
        return None;
    };
    Some(Client { program, get, put })
}

/// Its default mode, netascii, as well as binary.
#[test]
fn tftp_hpa_reads_and_writes() {
    if let Some(client) = client(
        "tftp",
        "-m binary {host} {port} -c get {name} {file}",
        "-m binary {host} {port} -c put {file} {name}",
    ) {
        client.check(&SIZES);
        client.check(&[LARGE]);
        let text = Client {
            get: "{host} {port} -c get {name} {file}",
            put: "{host} {port} -c put {file} {name}",
            ..client
        };
        text.check(&[0, 1, 100_000]);
    }
}

#[test]
fn curl_reads_and_writes() {
    for (get, put, sizes) in [
        (
            "-sS -o {file} tftp://{host}:{port}/{name}",
            "-sS -T {file} tftp://{host}:{port}/{name}",
            &SIZES[..],
        ),
        (
            "-sS --tftp-no-options -o {file} tftp://{host}:{port}//{name}",
            "-sS --tftp-no-options -T {file} tftp://{host}:{port}//{name}",
            &SIZES[..6],
        ),
        (
            "-sS --tftp-blksize 1468 -o {file} tftp://{host}:{port}/{name}",
            "-sS --tftp-blksize 1468 -T {file} tftp://{host}:{port}/{name}",
            &[0, 1468, 1469, LARGE][..],
        ),
        (
            "-sS --tftp-blksize 65464 -o {file} tftp://{host}:{port}/{name}",
            "-sS --tftp-blksize 65464 -T {file} tftp://{host}:{port}/{name}",
            &[0, 65464, LARGE][..],
        ),
    ] {
        let Some(client) = client("curl", get, put) else {
            return;
        };
        client.check(sizes);
    }
}

/// It then announces a size of 0.
#[test]
fn curl_uploads_what_it_does_not_know_the_size_of() {
    let put = "-c cat\t{file}\t|\tcurl\t-sS\t-T\t-\ttftp://{host}:{port}/{name}";
    if program("curl").is_none() {
        return skip("no curl");
    }
    if let Some(client) = client("sh", "", put) {
        client.check(&SIZES[..6]);
    }
}

#[test]
fn atftp_reads_and_writes_with_all_options() {
    let all = "--option blksize\t1428 --option tsize\tenable --option timeout\t5 \
               --option windowsize\t64 ";
    for options in [
        "",
        "--option blksize\t8192 ",
        "--option tsize\tenable ",
        "--option timeout\t3 ",
        "--option windowsize\t16 ",
        all,
    ] {
        let get = format!("{options}-g -r {{name}} -l {{file}} {{host}} {{port}}");
        let put = format!("{options}-p -l {{file}} -r {{name}} {{host}} {{port}}");
        let Some(client) = client("atftp", &get, &put) else {
            return;
        };
        client.check(&SIZES[..6]);
        if options == all {
            client.check(&[SIZES[6], LARGE]);
        }
    }
}

#[test]
fn busybox_reads_and_writes() {
    for block in ["", "-b 1468 ", "-b 65464 "] {
        let get = format!("tftp -g {block}-r {{name}} -l {{file}} {{host}} {{port}}");
        let put = format!("tftp -p {block}-l {{file}} -r {{name}} {{host}} {{port}}");
        let Some(client) = client("busybox", &get, &put) else {
            return;
        };
        client.check(&SIZES[..6]);
        if block.len() > 8 {
            client.check(&[LARGE]);
        }
    }
}

/// tftpy, if it is installed or can be.
#[test]
fn tftpy_reads_and_writes() {
    const SCRIPT: &str = "\
import sys, tftpy
how, host, port, name, file, options = sys.argv[1:]
options = dict(pair.split('=') for pair in options.split(',') if pair)
options = {name: int(value) for name, value in options.items()}
client = tftpy.TftpClient(host, int(port), options)
(client.download if how == 'get' else client.upload)(name, file)
";
    let Some(python) = program("python3") else {
        return skip("no python3");
    };
    // Next to the other things that are built, and kept for the next time.
    let site = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tftpy");
    if !site.join("tftpy").is_dir() {
        let install = ["-m", "pip", "install", "--quiet", "--target"];
        let installed = Command::new(&python)
            .args(install)
            .arg(&site)
            .arg("tftpy==0.8.7")
            .output()
            .is_ok_and(|output| output.status.success());
        if !installed {
            return skip("tftpy is neither here nor to be had by pip");
        }
    }
    let script = site.join("transfer.py");
    fs::write(&script, SCRIPT).unwrap();
    for options in ["", "blksize=1428,tsize=0", "blksize=8192"] {
        let script = script.to_str().unwrap();
        let get = format!("{script} get {{host}} {{port}} {{name}} {{file}} {options}");
        let put = format!("{script} put {{host}} {{port}} {{name}} {{file}} {options}");
        let client = Client {
            program: python.clone(),
            get: &get,
            put: &put,
        };
        client.check(&[0, 1, 512, 100_000]);
        if options == "blksize=8192" {
            client.check(&[LARGE / 4]);
        }
    }
}
