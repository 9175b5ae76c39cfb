//! Every case of `data/value-cases.json`: what libbutl and libbpkg make of the
//! kinds of values.

use std::cmp::Ordering;
use std::fmt::Debug;

use bbot_agent::json::Value;
use bbot_agent::manifest::value::{
    PackageVersion, RepositoryLocation, RepositoryType, StandardVersion, check_fingerprint,
    check_mac, check_package_name, check_sha256, decode_base64, encode_base64, merge_comment,
    quoted_list, split_comment, target_triplet,
};

use super::{file, hex, text};

/// Runs `check` on each case of a kind, and says which one failed.
fn each(kind: &str, count: usize, check: impl Fn(&Value)) {
    let file = file("value-cases.json");
    let cases = file.get(kind).and_then(Value::as_array).unwrap();
    assert_eq!(cases.len(), count, "{kind}");
    for case in cases {
        // Shown with a test that fails.
        eprintln!("{case}");
        check(case);
    }
}

/// The value, if the case says there is one; checks the error if not.
fn good<T: Debug>(case: &Value, result: Result<T, &str>) -> Option<T> {
    if case.get("ok").and_then(Value::as_bool) == Some(true) {
        return Some(result.unwrap());
    }
    assert_eq!(result.unwrap_err(), text(case, "error").unwrap());
    None
}

fn number(case: &Value, member: &str) -> u64 {
    case.get(member).and_then(Value::as_u64).unwrap()
}

fn ordering(case: &Value) -> Ordering {
    let result = case.get("result").and_then(Value::as_i64);
    result.unwrap().cmp(&0)
}

#[test]
fn package_versions_read_as_libbpkg_reads_them() {
    each("bpkg_version", 30, |case| {
        let result = PackageVersion::parse(text(case, "input").unwrap());
        let Some(version) = good(case, result) else {
            return;
        };
        let of = |member| text(case, member);
        assert_eq!(version.to_string(), of("string").unwrap());
        assert_eq!(u64::from(version.epoch()), number(case, "epoch"));
        assert_eq!(version.upstream(), of("upstream").unwrap());
        assert_eq!(version.release(), of("release"));
        let revision = case.get("revision").and_then(Value::as_u64);
        assert_eq!(version.revision().map(u64::from), revision);
        assert_eq!(
            version.canonical_upstream(),
            of("canonical_upstream").unwrap()
        );
        assert_eq!(
            version.canonical_release(),
            of("canonical_release").unwrap()
        );
    });
}

#[test]
fn package_versions_compare_as_libbpkg_compares_them() {
    each("bpkg_version_compare", 10, |case| {
        let of = |member| PackageVersion::parse(text(case, member).unwrap()).unwrap();
        assert_eq!(of("a").cmp(&of("b")), ordering(case));
        assert_eq!(of("b").cmp(&of("a")), ordering(case).reverse());
        assert_eq!(of("a") == of("b"), ordering(case) == Ordering::Equal);
    });
}

#[test]
fn the_unknown_version_is_zero_in_any_form() {
    for (text, expected) in [
        ("0", true),
        ("0.0", true),
        ("0+1", false),
        ("0-", false),
        ("+1-0", false),
        ("0.1", false),
    ] {
        assert_eq!(
            PackageVersion::parse(text).unwrap().is_unknown(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn standard_versions_read_as_libbutl_reads_them() {
    each("standard_version", 21, |case| {
        let result = StandardVersion::parse(text(case, "input").unwrap());
        let Some(version) = good(case, result) else {
            return;
        };
        assert_eq!(version.to_string(), text(case, "string").unwrap());
        assert_eq!(u64::from(version.epoch()), number(case, "epoch"));
        assert_eq!(
            version.numeric().to_string(),
            text(case, "numeric").unwrap()
        );
        assert_eq!(
            version.snapshot_number().to_string(),
            text(case, "snapshot_sn").unwrap()
        );
        assert_eq!(version.snapshot_id(), text(case, "snapshot_id").unwrap());
        assert_eq!(u64::from(version.revision()), number(case, "revision"));
    });
}

#[test]
fn standard_versions_compare_as_libbutl_compares_them() {
    each("standard_version_compare", 4, |case| {
        let of = |member| StandardVersion::parse(text(case, member).unwrap()).unwrap();
        assert_eq!(of("a").cmp(&of("b")), ordering(case));
    });
}

#[test]
fn a_pre_release_has_one_letter() {
    for text in [
        "1.2.3-ab.1",
        "1.2.3-ba.1",
        "1.2.3-a.1.z1",
        "1.2.3--a.1",
        "1.2.3 ",
    ] {
        StandardVersion::parse(text).unwrap_err();
    }
}

#[test]
fn package_names_follow_the_rules() {
    each("package_name", 16, |case| {
        good(case, check_package_name(text(case, "input").unwrap()));
    });
}

#[test]
fn repository_locations_have_one_canonical_name() {
    each("repository_location", 13, |case| {
        let url = text(case, "url").unwrap();
        let kind = text(case, "type").map(RepositoryType::parse).transpose();
        let result = kind.and_then(|kind| RepositoryLocation::parse(url, kind));
        let result = result.as_ref().map_err(String::as_str);
        let Some(location) = good(case, result) else {
            return;
        };
        assert_eq!(location.to_string(), text(case, "string").unwrap());
        assert_eq!(location.url(), text(case, "url_string").unwrap());
        assert_eq!(
            location.kind().to_string(),
            text(case, "effective_type").unwrap()
        );
        assert_eq!(
            location.canonical_name(),
            text(case, "canonical_name").unwrap()
        );
    });
}

#[test]
fn comments_are_split_off_and_merged_back() {
    for (merged, value, comment) in [
        ("value; comment", "value", "comment"),
        ("value", "value", ""),
        ("value  ;\t comment ", "value", "comment "),
        ("; comment", "", "comment"),
        ("a\\; b; c; d", "a; b", "c; d"),
        ("a\\\\; b", "a\\", "b"),
        ("c:\\dir; x", "c:\\dir", "x"),
        ("a\nb\n;\nc\nd", "a\nb", "c\nd"),
        ("a\n\\;\n\\\\;\n\\\\\\;\n;\nc", "a\n;\n\\;\n\\;", "c"),
        (";\nc", "", "c"),
        ("a\n;", "a", ""),
    ] {
        let split = split_comment(merged);
        assert_eq!(split, (value.to_owned(), comment.to_owned()), "{merged:?}");
        assert_eq!(
            split_comment(&merge_comment(value, comment)),
            split,
            "{merged:?}"
        );
    }
    let parts = ["a", ";", "\\;", "\\", "\\\\;", "x y"];
    for a in parts {
        for b in parts {
            for separator in ["", "\n"] {
                let value = format!("{a}{separator}{b}");
                for comment in ["", "c; d", "c\nd"] {
                    let merged = merge_comment(&value, comment);
                    assert_eq!(
                        split_comment(&merged),
                        (value.clone(), comment.to_owned()),
                        "{merged:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn identifiers_have_their_form() {
    let sha = "2d21851b90400f6f6adc43f4957a97025fff003bf833ffe568bcac904d5a4b1d";
    assert!(check_sha256(sha).is_ok());
    assert!(check_sha256(&sha[1..]).is_err());
    assert!(check_sha256(&sha.to_uppercase()).is_err());
    let print = "00:08:10:18:20:28:30:38:40:48:50:58:60:68:70:78:80:88:90:98:A0:a8:B0:B8:C0:C8:D0:D8:E0:E8:F0:F8";
    assert!(check_fingerprint(print).is_ok());
    for bad in [
        "",
        "yes",
        &print[3..],
        &format!("{print}:00"),
        &print.replace("08", "0:8"),
        &print.replace('F', "G"),
    ] {
        assert!(check_fingerprint(bad).is_err(), "{bad}");
    }
    assert!(check_mac("02:1a:2b:3c:4d:5e").is_ok());
    for bad in [
        "02:1A:2b:3c:4d:5e",
        "02:1a:2b:3c:4d",
        "02-1a-2b-3c-4d-5e",
        "02:1a:2b:3c:4d:5e:",
    ] {
        assert!(check_mac(bad).is_err(), "{bad}");
    }
}

#[test]
fn base64_is_wrapped_as_coreutils_does() {
    each("base64_encode", 6, |case| {
        let bytes = hex(text(case, "input_hex").unwrap());
        let code = encode_base64(&bytes);
        assert_eq!(code, text(case, "output").unwrap());
        assert_eq!(decode_base64(&code), Ok(bytes));
    });
    each("base64_decode", 11, |case| {
        if let Some(bytes) = good(case, decode_base64(text(case, "input").unwrap())) {
            assert_eq!(bytes, text(case, "output").unwrap().as_bytes());
        }
    });
}

#[test]
fn quoted_lists_are_split_and_unquoted() {
    for (kind, unquote) in [("parse_quoted", false), ("parse_quoted_unquote", true)] {
        each(kind, 7, |case| {
            let list = quoted_list(text(case, "input").unwrap(), unquote);
            if let Some(list) = good(case, list) {
                let expected = case.get("output").and_then(Value::as_array).unwrap();
                let expected: Vec<_> = expected.iter().map(|e| e.as_str().unwrap()).collect();
                assert_eq!(list, expected);
            }
        });
    }
}

#[test]
fn target_triplets_lose_vendors_that_mean_nothing() {
    each("target_triplet", 7, |case| {
        if let Some(target) = good(case, target_triplet(text(case, "input").unwrap())) {
            assert_eq!(target, text(case, "string").unwrap());
        }
    });
}
