//! Every case of `data/value-cases.json`: what libbutl and libbpkg make of the
//! kinds of values.

use std::cmp::Ordering;
use std::fmt::Debug;

use bbot_agent::json::Value;
use bbot_agent::manifest::value::{
    PackageVersion, StandardVersion, check_mac, encode_base64, quoted_list,
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

fn ordering(case: &Value) -> Ordering {
    match case.get("result").unwrap().to_string().as_str() {
        "-1" => Ordering::Less,
        "0" => Ordering::Equal,
        _ => Ordering::Greater,
    }
}

#[test]
fn package_versions_read_as_libbpkg_reads_them() {
    each("bpkg_version", 30, |case| {
        good(case, PackageVersion::parse(text(case, "input").unwrap()));
    });
}

#[test]
fn package_versions_compare_as_libbpkg_compares_them() {
    each("bpkg_version_compare", 10, |case| {
        let of = |member| PackageVersion::parse(text(case, member).unwrap()).unwrap();
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
        assert_eq!(
            version.numeric().to_string(),
            text(case, "numeric").unwrap()
        );
        assert_eq!(
            version.snapshot_number().to_string(),
            text(case, "snapshot_sn").unwrap()
        );
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
fn a_mac_address_has_its_form() {
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
