//! Limits of uploads, disks that are full, descriptors.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bbot_agent::tftp::ServerSettings;

use super::files::{get, put};
use crate::support::skip;
use crate::support::tftp::{Said, Scratch, Server, pattern};

#[test]
fn the_size_limit_is_told_before_the_last_ack() {
    let scratch = Scratch::new();
    fs::write(scratch.put().join("f"), b"old").unwrap();
    let config = ServerSettings {
        upload_most: 2000,
        ..ServerSettings::default()
    };
    let server = Server::with(&scratch, config);
    let client = server.client();
    // Announced: at once.
    client.wrq("f", &[("tsize", "2001")]);
    assert_eq!(client.hear_error().0, 3);
    // Not announced, or a lie: when it is exceeded.
    for options in [&[][..], &[("tsize", "0")], &[("tsize", "100")]] {
        let client = server.client();
        client.wrq("f", options);
        client.hear();
        for number in 1..=3 {
            client.data(number, &pattern(512));
            client.hear_ack(number);
        }
        client.data(4, &pattern(465));
        assert_eq!(client.hear_error().0, 3);
        assert_eq!(scratch.uploaded("f").as_deref(), Some(&b"old"[..]));
    }
    let client = server.client();
    client.wrq("f", &[("tsize", "2000")]);
    client.hear_oack();
    client.store(512, &pattern(2000));
    assert!(scratch.uploaded("f") == Some(pattern(2000)));
}

#[test]
fn uploads_are_bounded_in_number_and_in_total() {
    let scratch = Scratch::new();
    let config = ServerSettings {
        uploads_octets_most: 3000,
        uploads_most: 3,
        ..ServerSettings::default()
    };
    let server = Server::with(&scratch, config);
    assert_eq!(put(&server, "a", &pattern(1000)), Ok(()));
    let slow = server.client();
    slow.wrq("b", &[]);
    slow.hear_ack(0);
    slow.data(1, &pattern(512));
    slow.hear_ack(1);
    // 1512 octets are taken, one of them by an upload that is not done yet.
    let client = server.client();
    client.wrq("c", &[("blksize", "1000")]);
    client.hear_oack();
    client.data(1, &pattern(1000));
    client.hear_ack(1);
    client.data(2, &pattern(600));
    assert_eq!(client.hear_error().0, 3);
    // What came to nothing does not count.
    assert_eq!(put(&server, "c", &pattern(1400)), Ok(()));
    let client = server.client();
    client.wrq("d", &[]);
    assert_eq!(client.hear_error().0, 3);
    slow.data(2, b"");
    slow.hear_ack(2);
    assert_eq!(scratch.names(), ["a", "b", "c"]);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_never_a_mix() {
    let scratch = Scratch::new();
    let (old, new) = (vec![1; 200_000], vec![2; 200_000]);
    let path = scratch.get().join("f");
    for change in ["truncate", "rewrite", "append", "rename", "unlink"] {
        fs::write(&path, &old).unwrap();
        let server = Server::start(&scratch);
        let client = server.client();
        client.rrq("f", &[("blksize", "1024")]);
        client.hear_oack();
        client.ack(0);
        let mut got = client.hear_data(1);
        match change {
            "truncate" => fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(50_000)
                .unwrap(),
            "rewrite" => fs::write(&path, &new).unwrap(),
            "append" => {
                use std::io::Write as _;
                let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
                file.write_all(b"more").unwrap();
            }
            "rename" => {
                fs::write(scratch.get().join("g"), &new).unwrap();
                fs::rename(scratch.get().join("g"), &path).unwrap();
            }
            _ => fs::remove_file(&path).unwrap(),
        }
        client.ack(1);
        let failed = loop {
            match client.hear() {
                Said::Data(number, payload) => {
                    got.extend_from_slice(&payload);
                    client.ack(number);
                    if payload.len() < 1024 {
                        break false;
                    }
                }
                Said::Error(0, _) => break true,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(failed, !matches!(change, "rename" | "unlink"), "{change}");
        assert!(old.starts_with(&got), "{change}: a mix");
        assert!(failed || got.len() == old.len(), "{change}: short");
    }
}

#[test]
fn no_descriptor_is_left_open() {
    let scratch = Scratch::new();
    scratch.file("f", &pattern(1000));
    let server = Server::start(&scratch);
    let under = |root: &Path| {
        let root = root.canonicalize().unwrap();
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .filter(|path| {
                path.starts_with(&root) && *path != root.join("get") && *path != root.join("put")
            })
            .count()
    };
    let root = scratch.get().join("..");
    for _ in 0..300 {
        assert!(get(&server, "f").is_ok());
        assert!(put(&server, "u", b"x").is_ok());
        assert!(get(&server, "nothing").is_err());
        assert!(put(&server, "no/thing", b"x").is_err());
        let client = server.client();
        client.wrq("v", &[]);
        client.hear_ack(0);
        client.error(0, "no");
    }
    // The last ACK may still be under way.
    let deadline = Instant::now() + Duration::from_secs(10);
    while under(&root) > 0 {
        assert!(Instant::now() < deadline, "{} open", under(&root));
        std::thread::yield_now();
    }
}

/// A tmpfs of so many octets; unmounted with the guard.
struct Small(Scratch);

impl Small {
    fn new(size: u32) -> Option<Small> {
        let scratch = Scratch::new();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(scratch.put())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Small(scratch))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.put()).status();
    }
}

#[test]
fn a_full_disk_is_told_before_the_last_ack() {
    let Some(small) = Small::new(256 * 1024) else {
        return skip("cannot mount a tmpfs");
    };
    let scratch = &small.0;
    fs::write(scratch.put().join("f"), b"old").unwrap();
    let server = Server::start(scratch);
    for (blksize, window) in [("512", "1"), ("8192", "1"), ("65464", "1"), ("1024", "16")] {
        let client = server.client();
        client.wrq("f", &[("blksize", blksize), ("windowsize", window)]);
        client.hear_oack();
        let size: usize = blksize.parse().unwrap();
        let window: usize = window.parse().unwrap();
        let mut number = 0_u16;
        let code = loop {
            for block in pattern(size * window).chunks(size) {
                number += 1;
                client.data(number, block);
            }
            match client.hear() {
                Said::Ack(n) => assert_eq!(n, number),
                Said::Error(code, _) => break code,
                other => panic!("{other:?}"),
            }
            assert!(
                usize::from(number) * size < 600_000,
                "acknowledged beyond the disk"
            );
        };
        assert_eq!(code, 3, "{blksize}");
        assert_eq!(scratch.uploaded("f").as_deref(), Some(&b"old"[..]));
        assert_eq!(scratch.names(), ["f"]);
    }
    // Announced, it is refused at once.
    let client = server.client();
    client.wrq("f", &[("tsize", "1000000")]);
    assert_eq!(client.hear_error().0, 3);
    // And the space is back.
    assert_eq!(put(&server, "f", &pattern(100_000)), Ok(()));
    assert!(scratch.uploaded("f") == Some(pattern(100_000)));
}
