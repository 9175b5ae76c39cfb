//! The TFTP server and the file system: what may be read, what is written, and
//! what others see meanwhile.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use bbot_agent::tftp::{Map, Served, ServerSettings};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::tftp::{Said, Scratch, Server, pattern};

/// What a GET of `name` gives: the file or the error code.
pub fn get(server: &Server, name: &str) -> Result<Vec<u8>, u16> {
    let client = server.client();
    client.rrq(name, &[("blksize", "65464")]);
    match client.hear() {
        Said::Error(code, text) => {
            assert!(!text.contains('/'), "a path of the host: {text}");
            Err(code)
        }
        _ => {
            client.ack(0);
            Ok(client.rest(65464))
        }
    }
}

/// The error code of a PUT, if it is refused at once.
pub fn put(server: &Server, name: &str, octets: &[u8]) -> Result<(), u16> {
    let client = server.client();
    client.wrq(name, &[]);
    match client.hear() {
        Said::Error(code, text) => {
            assert!(!text.contains('/'), "a path of the host: {text}");
            Err(code)
        }
        _ => {
            client.store(512, octets);
            Ok(())
        }
    }
}

#[test]
fn names_are_confined_to_their_directory() {
    let scratch = Scratch::new();
    fs::write(scratch.get().join("../secret"), b"secret").unwrap();
    fs::create_dir(scratch.get().join("sub")).unwrap();
    for name in [
        "plain",
        "a..b",
        "sub/x",
        "back\\slash",
        "%2e%2e",
        ".hidden",
        "spa ce",
        "ünï",
    ] {
        scratch.file(name, name.as_bytes());
    }
    let server = Server::start(&scratch);
    for (raw, name) in [
        ("plain", "plain"),
        ("/plain", "plain"),
        ("//plain", "plain"),
        ("./plain", "plain"),
        ("sub/x", "sub/x"),
        ("/sub//x", "sub/x"),
        ("sub/./x", "sub/x"),
        ("a..b", "a..b"),
        ("back\\slash", "back\\slash"),
        ("%2e%2e", "%2e%2e"),
        (".hidden", ".hidden"),
        ("spa ce", "spa ce"),
        ("ünï", "ünï"),
    ] {
        assert_eq!(get(&server, raw), Ok(name.as_bytes().to_vec()), "{raw}");
    }
    for raw in [
        "../secret",
        "/../secret",
        "sub/../../secret",
        "sub/../plain",
        "..",
        "/..",
        "plain/",
        "sub",
        "sub/",
        ".",
        "/",
        "./",
    ] {
        assert_eq!(get(&server, raw), Err(2), "{raw}");
        assert_eq!(put(&server, raw, b"x").is_err(), raw != "sub", "{raw}");
        let _ = fs::remove_file(scratch.put().join("sub"));
    }
    let secret = scratch.get().join("../secret").canonicalize().unwrap();
    let absolute = secret.to_str().unwrap();
    for raw in [
        absolute,
        "..\\secret",
        "%2e%2e/secret",
        "nothing",
        "plain/x",
        "no/x",
    ] {
        assert_eq!(get(&server, raw), Err(1), "{raw}");
    }
    assert_eq!(get(&server, &"n".repeat(300)), Err(1));
    assert_eq!(put(&server, &"n".repeat(300), b"x"), Err(1));
    assert_eq!(put(&server, "no/such/dir", b"x"), Err(1));
    assert_eq!(put(&server, absolute, b"x"), Err(1));
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    assert!(scratch.names().is_empty());
}

#[test]
fn symlinks_are_followed_inside_and_refused_outside() {
    let scratch = Scratch::new();
    let outside = scratch.get().join("../outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), b"secret").unwrap();
    for root in [scratch.get(), scratch.put()] {
        fs::create_dir_all(root.join("dir/deep")).unwrap();
        fs::write(root.join("dir/f"), b"inside").unwrap();
        symlink("dir/f", root.join("to-file")).unwrap();
        symlink("dir/deep/../f", root.join("dotted")).unwrap();
        symlink("to-file", root.join("to-link")).unwrap();
        symlink("dir", root.join("to-dir")).unwrap();
        symlink("../outside/f", root.join("out-file")).unwrap();
        symlink("../outside", root.join("out-dir")).unwrap();
        symlink(outside.join("f"), root.join("out-absolute")).unwrap();
        symlink("../outside/new", root.join("out-new")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        // By way of what is outside, to what is inside.
        symlink(root.join("dir/f"), root.join("absolute")).unwrap();
        symlink(root.join("dir"), root.join("dir/abs-dir")).unwrap();
        let back = Path::new("..").join(root.file_name().unwrap());
        symlink(back.join("dir/f"), root.join("out-and-back")).unwrap();
        symlink(outside.join("back"), root.join("chain")).unwrap();
        symlink(root.join("nowhere"), root.join("abs-dangling")).unwrap();
        // The name of the root is no more than the beginning of this one.
        let more = PathBuf::from(format!("{}-more", root.display()));
        fs::create_dir(&more).unwrap();
        fs::write(more.join("f"), b"secret").unwrap();
        symlink(more.join("f"), root.join("more")).unwrap();
    }
    let server = Server::start(&scratch);
    for root in [scratch.put(), scratch.get()] {
        // The last of these is for reading, and stays.
        let _ = fs::remove_file(outside.join("back"));
        symlink(root.join("dir/f"), outside.join("back")).unwrap();
        if root == scratch.put() {
            assert_eq!(put(&server, "chain", b"chain"), Ok(()));
            assert_eq!(scratch.uploaded("dir/f").as_deref(), Some(&b"chain"[..]));
        } else {
            assert_eq!(get(&server, "chain"), Ok(b"inside".to_vec()));
        }
    }
    for name in [
        "to-file",
        "to-link",
        "dotted",
        "to-dir/f",
        "absolute",
        "to-dir/abs-dir/f",
        "out-and-back",
    ] {
        assert_eq!(get(&server, name), Ok(b"inside".to_vec()), "{name}");
        // What is written is the file behind the link; the link stays.
        assert_eq!(put(&server, name, name.as_bytes()), Ok(()), "{name}");
        assert_eq!(
            fs::read(scratch.put().join("dir/f")).unwrap(),
            name.as_bytes()
        );
        assert_eq!(fs::read(scratch.put().join(name)).unwrap(), name.as_bytes());
    }
    assert!(scratch.put().join("to-link").is_symlink());
    assert_eq!(put(&server, "dir/abs-dir/new", b"new"), Ok(()));
    assert_eq!(scratch.uploaded("dir/new").as_deref(), Some(&b"new"[..]));
    for name in [
        "out-file",
        "out-dir/f",
        "out-absolute",
        "out-new",
        "loop",
        "more",
        "abs-dangling",
    ] {
        assert_eq!(get(&server, name), Err(2), "{name}");
        assert_eq!(put(&server, name, b"x"), Err(2), "{name}");
    }
    assert_eq!(get(&server, "dangling"), Err(1));
    assert_eq!(put(&server, "dangling", b"x"), Err(2));
    assert_eq!(fs::read(outside.join("f")).unwrap(), b"secret");
    assert!(!outside.join("new").exists());
}

#[test]
fn only_regular_files_are_served_and_nothing_blocks() {
    let scratch = Scratch::new();
    for root in [scratch.get(), scratch.put()] {
        mkfifo(&root.join("fifo"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        fs::create_dir(root.join("dir")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
        fs::write(root.join("sealed"), b"x").unwrap();
        fs::set_permissions(root.join("sealed"), Permissions::from_mode(0o000)).unwrap();
        symlink("/dev/zero", root.join("device")).unwrap();
        symlink(root.join("fifo"), root.join("to-fifo")).unwrap();
        symlink(root.join("dir"), root.join("to-dir")).unwrap();
    }
    let server = Server::start(&scratch);
    for name in [
        "fifo", "dir", "socket", "sealed", "device", "to-fifo", "to-dir",
    ] {
        assert_eq!(get(&server, name), Err(2), "{name}");
        assert_eq!(put(&server, name, b"x"), Err(2), "{name}");
    }
    scratch.file("f", b"still here");
    assert_eq!(get(&server, "f"), Ok(b"still here".to_vec()));
}

#[test]
fn an_upload_is_invisible_until_it_is_whole_and_then_replaces_the_old_file() {
    let scratch = Scratch::new();
    fs::write(scratch.put().join("f"), b"old").unwrap();
    let server = Server::start(&scratch);
    for file in ["f", "new"] {
        let old = scratch.uploaded(file);
        let reader = fs::File::open(scratch.put().join("f")).unwrap();
        let names = scratch.names();
        let client = server.client();
        client.wrq(file, &[("blksize", "1024")]);
        client.hear_oack();
        for (number, block) in (1..).zip(pattern(50 * 1024).chunks(1024)) {
            client.data(number, block);
            client.hear_ack(number);
            assert_eq!(scratch.uploaded(file), old);
            assert_eq!(scratch.names(), names, "a part is visible");
        }
        client.data(51, b"");
        client.hear_ack(51);
        assert!(scratch.uploaded(file) == Some(pattern(50 * 1024)));
        drop(reader);
    }
    assert_eq!(scratch.names(), ["f", "new"]);
}

#[test]
fn an_upload_that_comes_to_nothing_leaves_the_old_file_alone() {
    let scratch = Scratch::new();
    fs::write(scratch.put().join("f"), b"old").unwrap();
    let server = Server::start(&scratch);
    let client = server.client();
    for ending in 0..3 {
        client.wrq("f", &[]);
        client.hear_ack(0);
        client.data(1, &pattern(512));
        client.hear_ack(1);
        match ending {
            0 => client.error(0, "aborted"),
            1 => client.data(2, &pattern(600)),
            // Another request of the same port.
            _ => client.wrq("g", &[]),
        }
        server.wait(|event| matches!(event, Served::Failed { .. }).then_some(()));
        assert_eq!(scratch.uploaded("f").as_deref(), Some(&b"old"[..]));
        assert_eq!(scratch.names(), ["f"]);
        if ending == 1 {
            client.hear_error();
        }
    }
    drop(server);
    assert_eq!(scratch.names(), ["f"]);
}

#[test]
fn two_uploads_of_one_name_do_not_mix() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch);
    let (one, two) = (server.client(), server.client());
    for client in [&one, &two] {
        client.wrq("f", &[]);
        client.hear_ack(0);
    }
    for number in 1..=3 {
        one.data(number, &[1; 512]);
        one.hear_ack(number);
        two.data(number, &[2; 512]);
        two.hear_ack(number);
    }
    one.data(4, &[1; 4]);
    one.hear_ack(4);
    assert_eq!(scratch.uploaded("f"), Some(vec![1; 3 * 512 + 4]));
    two.data(4, &[2; 5]);
    two.hear_ack(4);
    assert_eq!(scratch.uploaded("f"), Some(vec![2; 3 * 512 + 5]));
    assert_eq!(scratch.names(), ["f"]);
}

#[test]
fn hidden_parts_can_be_neither_read_nor_written() {
    let scratch = Scratch::new();
    scratch.file(".tftp-1-2.part", b"x");
    let server = Server::start(&scratch);
    assert_eq!(get(&server, ".tftp-1-2.part"), Err(2));
    assert_eq!(put(&server, ".tftp-1-2.part", b"x"), Err(2));
}

#[test]
fn a_root_that_is_made_anew_is_found_again() {
    let scratch = Scratch::new();
    scratch.file("f", b"one");
    let server = Server::start(&scratch);
    assert_eq!(get(&server, "f"), Ok(b"one".to_vec()));
    fs::remove_dir_all(scratch.get()).unwrap();
    assert_eq!(get(&server, "f"), Err(1));
    fs::create_dir(scratch.get()).unwrap();
    scratch.file("f", b"two");
    assert_eq!(get(&server, "f"), Ok(b"two".to_vec()));
}

#[test]
fn a_directory_to_write_to_that_is_made_anew_is_found_again() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch);
    assert_eq!(put(&server, "f", b"one"), Ok(()));
    fs::remove_dir_all(scratch.put()).unwrap();
    assert_eq!(put(&server, "f", b"none"), Err(1));
    fs::create_dir_all(scratch.put().join("sub")).unwrap();
    for name in ["f", "sub/f", "f"] {
        assert_eq!(put(&server, name, b"two"), Ok(()));
        assert_eq!(scratch.uploaded(name).as_deref(), Some(&b"two"[..]));
    }
}

#[test]
fn a_root_that_was_renamed_is_left_for_the_one_in_its_place() {
    let scratch = Scratch::new();
    scratch.file("f", b"one");
    let server = Server::start(&scratch);
    assert_eq!(get(&server, "f"), Ok(b"one".to_vec()));
    assert_eq!(put(&server, "f", b"one"), Ok(()));
    let old = |root: &Path| root.join("../old").join(root.file_name().unwrap());
    fs::create_dir(scratch.put().join("../old")).unwrap();
    for root in [scratch.get(), scratch.put()] {
        fs::rename(&root, old(&root)).unwrap();
        fs::create_dir(&root).unwrap();
    }
    scratch.file("f", b"two");
    assert_eq!(get(&server, "f"), Ok(b"two".to_vec()));
    assert_eq!(put(&server, "f", b"two"), Ok(()));
    assert_eq!(scratch.uploaded("f").as_deref(), Some(&b"two"[..]));
    let old = old(&scratch.put()).join("f");
    assert_eq!(fs::read(old).unwrap(), b"one");
}

#[test]
fn get_and_put_may_be_one_directory() {
    let scratch = Scratch::new();
    let map = Map::new().get(scratch.put()).put(scratch.put());
    let server = Server::mapped(map, ServerSettings::default());
    assert_eq!(put(&server, "f", &pattern(3000)), Ok(()));
    assert!(get(&server, "f") == Ok(pattern(3000)));
}
