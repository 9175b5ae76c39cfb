//! Tar archives as GNU tar makes them in each of its formats, and archives that
//! are up to no good.

use std::fs;
use std::io::Cursor;

use bbot_agent::tar::{ArchiveLimits, Member, members};

use crate::support::{TempDir, require_programs, run};

fn list(archive: &[u8]) -> Result<Vec<Member>, String> {
    members(&mut Cursor::new(archive), ArchiveLimits::default()).map_err(|e| e.to_string())
}

fn error(archive: &[u8]) -> String {
    let error = list(archive).unwrap_err();
    error
        .strip_prefix("invalid tar archive: ")
        .unwrap()
        .to_owned()
}

/// Names and contents.
fn files(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let members = list(archive).unwrap().into_iter();
    members
        .map(|m| {
            let start = usize::try_from(m.offset).unwrap();
            let end = start + usize::try_from(m.size).unwrap();
            (m.name, archive[start..end].to_vec())
        })
        .collect()
}

/// One member with a ustar header.
fn member(name: &str, kind: u8, contents: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", contents.len()).as_bytes());
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    let mut member = summed(header);
    member.extend(contents);
    member.resize(member.len().next_multiple_of(512), 0);
    member
}

/// The header with the right checksum.
fn summed(mut header: Vec<u8>) -> Vec<u8> {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut archive = members.concat();
    archive.extend([0; 1024]);
    archive
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len();
        while length != rest.len() + length.to_string().len() {
            length = rest.len() + length.to_string().len();
        }
        format!("{length}{rest}")
    };
    let records: String = records.iter().map(record).collect();
    member("PaxHeaders/x", b'x', records.as_bytes())
}

#[test]
fn every_format_of_gnu_tar_is_read() {
    if !require_programs(&["tar"]) {
        return;
    }
    let dir = TempDir::new();
    let top = dir.path().join("in");
    let deep = top.join("a".repeat(60)).join("b".repeat(60));
    fs::create_dir_all(&top).unwrap();
    let long = deep.join("c".repeat(90));
    fs::write(top.join("empty"), b"").unwrap();
    fs::write(top.join("small"), b"small").unwrap();
    fs::write(top.join("block"), [7; 512]).unwrap();
    fs::write(top.join("large"), [8; 100_000]).unwrap();
    fs::write(top.join("é€"), b"utf8").unwrap();
    for format in ["v7", "oldgnu", "gnu", "ustar", "pax"] {
        let file = dir.path().join(format);
        // The oldest one has no room for it.
        if format != "v7" {
            fs::create_dir_all(&deep).unwrap();
            fs::write(&long, b"long").unwrap();
        }
        let (file, top) = (file.to_str().unwrap(), top.to_str().unwrap());
        run(&format!("tar --format={format} -C {top} -cf {file} ."));
        let archive = fs::read(file).unwrap();
        let mut found = files(&archive);
        found.sort();
        let mut expected = vec![
            ("block".to_owned(), vec![7; 512]),
            ("empty".to_owned(), vec![]),
            ("large".to_owned(), vec![8; 100_000]),
            ("small".to_owned(), b"small".to_vec()),
            ("é€".to_owned(), b"utf8".to_vec()),
        ];
        if long.exists() {
            let name = long.strip_prefix(top).unwrap().to_str().unwrap();
            expected.insert(0, (name.to_owned(), b"long".to_vec()));
        }
        assert!(found == expected, "{format}: {:?}", list(&archive));
        for end in (0..archive.len() - 10_240).step_by(509) {
            list(&archive[..end]).unwrap_err();
        }
    }
}

#[test]
fn links_devices_and_sparse_files_of_gnu_tar_are_refused() {
    if !require_programs(&["tar"]) {
        return;
    }
    let dir = TempDir::new();
    let file = dir.path().join("tar");
    let name = |n: &str| dir.path().join(n);
    fs::write(name("a"), b"a").unwrap();
    fs::hard_link(name("a"), name("b")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", name("c")).unwrap();
    let sparse = fs::File::create(name("d")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    let tar = |options: &str| {
        let (dir, file) = (dir.path().to_str().unwrap(), file.to_str().unwrap());
        run(&format!("tar -C {dir} -cf {file} {options}"));
        error(&fs::read(file).unwrap())
    };
    assert_eq!(tar("a b"), "hard link in member 'b'");
    assert_eq!(tar("c"), "symbolic link in member 'c'");
    assert_eq!(tar("--format=gnu -S d"), "sparse file in member 'd'");
    assert_eq!(tar("--format=pax -S d"), "sparse file");
}

#[test]
fn names_lead_nowhere_else() {
    for (name, reason) in [
        ("/etc/passwd", "absolute path in member '/etc/passwd'"),
        ("../x", "'..' in the path in member '../x'"),
        ("a/../../x", "'..' in the path in member 'a/../../x'"),
        ("a/..", "'..' in the path in member 'a/..'"),
        (
            "a\\..\\x",
            "backslash or control character in member 'a\\\\..\\\\x'",
        ),
        ("a\nb", "backslash or control character in member 'a\\nb'"),
        ("", "no name in member ''"),
        (".", "no name in member '.'"),
    ] {
        assert_eq!(error(&archive(&[member(name, b'0', b"x")])), reason);
        if !name.is_empty() {
            let long = [pax(&[("path", name)]), member("x", b'0', b"x")];
            assert_eq!(error(&archive(&long)), reason);
        }
    }
    let twice = [member("a/b", b'0', b""), member("./a//b", b'0', b"")];
    assert_eq!(error(&archive(&twice)), "member 'a/b' twice");
    let latin = archive(&[summed(
        member("x", b'0', b"")
            .iter()
            .enumerate()
            .map(|(i, b)| if i == 0 { 0xE9 } else { *b })
            .collect(),
    )]);
    assert_eq!(error(&latin), "name '\\xe9' is not UTF-8");
}

#[test]
fn anything_but_a_file_or_a_directory_is_refused() {
    for (kind, reason) in [
        (b'1', "hard link"),
        (b'2', "symbolic link"),
        (b'3', "device"),
        (b'4', "device"),
        (b'6', "fifo"),
        (b'S', "sparse file"),
        (b'M', "unknown type 'M'"),
        (b'\n', "unknown type '\\n'"),
    ] {
        let archive = archive(&[member("x", kind, b"")]);
        assert_eq!(error(&archive), format!("{reason} in member 'x'"));
    }
    for key in ["GNU.sparse.major", "GNU.sparse.map"] {
        let sparse = [pax(&[(key, "1")]), member("x", b'0', b"")];
        assert_eq!(error(&archive(&sparse)), "sparse file");
    }
    let directories = [
        member("d", b'5', b""),
        member("e/", b'0', b""),
        member("e/x", 0, b"y"),
    ];
    assert_eq!(
        files(&archive(&directories)),
        [("e/x".to_owned(), b"y".to_vec())]
    );
}

#[test]
fn sizes_are_those_of_bytes_that_are_there() {
    let mut lie = member("x", b'0', &[7; 600]);
    lie[124..135].copy_from_slice(b"77777777777");
    let lie = summed(lie[..512].to_vec());
    assert_eq!(
        error(&archive(&[lie])),
        "more than 1073741824 bytes in member 'x'"
    );
    let sized = [pax(&[("size", "5000")]), member("x", b'0', b"")];
    assert_eq!(
        error(&archive(&sized)),
        "unexpected end at offset 2560 in member 'x'"
    );
    let sized = [
        pax(&[("size", "99999999999999999999")]),
        member("x", b'0', b""),
    ];
    assert_eq!(error(&archive(&sized)), "malformed pax header");
    // Base 256, as GNU tar writes what does not fit.
    let mut large = member("x", b'0', b"")[..512].to_vec();
    large[124..136].copy_from_slice(&[0xFF; 12]);
    assert_eq!(
        error(&archive(&[summed(large.clone())])),
        "number out of range"
    );
    large[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    let large = [summed(large), b"abc".to_vec(), vec![0; 509]];
    assert_eq!(files(&archive(&large)), [("x".to_owned(), b"abc".to_vec())]);
    let header = member("PaxHeaders/x", b'x', &vec![b' '; 70_000]);
    assert_eq!(error(&archive(&[header])), "extended header of 70000 bytes");
}

#[test]
fn an_archive_is_whole_or_refused() {
    let whole = archive(&[member("a", b'0', b"x"), member("b", b'0', &[1; 513])]);
    assert_eq!(list(&whole).unwrap().len(), 2);
    // All but the first of the two empty blocks is needed.
    for end in 0..whole.len() - 512 {
        assert!(
            error(&whole[..end]).starts_with("unexpected end at offset"),
            "{end}"
        );
    }
    assert_eq!(list(&[0; 1024]), Ok(vec![]));
    let mut flipped = whole.clone();
    flipped[0] ^= 1;
    assert_eq!(error(&flipped), "wrong header checksum at offset 0");
    assert_eq!(error(&[b'x'; 1024]), "octal digit expected in a header");
}

#[test]
fn the_number_of_members_is_bounded() {
    let limits = ArchiveLimits {
        members: 3,
        ..ArchiveLimits::default()
    };
    let count = |archive: &[u8]| members(&mut Cursor::new(archive), limits).map(|m| m.len());
    let file = |n: usize| member(&format!("f{n}"), b'0', b"");
    let three: Vec<_> = (0..3).map(file).collect();
    assert_eq!(count(&archive(&three)).unwrap(), 3);
    let four: Vec<_> = (0..4).map(file).collect();
    let error = count(&archive(&four)).unwrap_err().to_string();
    assert_eq!(error, "invalid tar archive: more than 3 members");
    let directories: Vec<_> = (0..10)
        .map(|n| member(&format!("d{n}"), b'5', b""))
        .collect();
    count(&archive(&directories)).unwrap_err();
    let headers: Vec<_> = (0..10).map(|_| pax(&[("comment", "x")])).collect();
    count(&archive(&headers)).unwrap_err();
}

#[test]
fn a_global_header_is_a_comment_or_refused() {
    let global = |records: &[(&str, &str)]| {
        let mut header = pax(records);
        header[156] = b'g';
        let contents = header.split_off(512);
        [summed(header), contents].concat()
    };
    let file = || member("x", b'0', b"y");
    let commented = [global(&[("comment", "5e1f")]), file()];
    assert_eq!(list(&archive(&commented)).unwrap().len(), 1);
    let renamed = [global(&[("path", "y")]), file()];
    assert_eq!(error(&archive(&renamed)), "path or size for all members");
}

#[test]
fn any_bytes_are_an_archive_or_not() {
    let good = archive(&[
        pax(&[("path", "long"), ("size", "3")]),
        member("a", b'0', b"abc"),
        member("d", b'5', b""),
    ]);
    let mut state = 9u64;
    let mut next = |n: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % n
    };
    assert_eq!(files(&good), [("long".to_owned(), b"abc".to_vec())]);
    let mut taken = 0;
    for _ in 0..100_000 {
        let mut bytes = good.clone();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            bytes[at] = u8::try_from(next(256)).unwrap();
        }
        // So that more than the checksum is tried.
        for at in [0, 1024, 2048] {
            let header = summed(bytes[at..at + 512].to_vec());
            bytes[at..at + 512].copy_from_slice(&header);
        }
        bytes.truncate(bytes.len() - next(2) * next(2000));
        if let Ok(members) = list(&bytes) {
            taken += 1;
            for Member { name, offset, size } in members {
                assert!(offset + size <= bytes.len() as u64);
                assert!(!name.starts_with('/') && !name.split('/').any(|p| p == ".."));
            }
        }
    }
    assert!(taken > 1000, "only {taken} were archives");
}
