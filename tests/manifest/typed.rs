//! The kinds of manifests: what each one takes, keeps and refuses.

use bbot_agent::manifest::{
    BootstrapManifest, BootstrappedMachine, MachineHeader, MachineKind, MachineManifest,
    ResultManifest, Role, Style, TaskManifest, TaskRequest, TaskResponse, ToolchainManifest,
};

const TRUST: &str = "00:08:10:18:20:28:30:38:40:48:50:58:60:68:70:78:80:88:90:98:A0:A8:B0:B8:C0:C8:D0:D8:E0:E8:F0:F8";

const TASK: &str = "\
: 1
name: libfoo
version: 1.2.3
repository-url: https://pkg.cppget.org/1/alpha
repository-type: pkg
trust: yes
requires: c++14
tests: libfoo-tests == $
dependency-checksum: 5b2e
machine: x86_64-linux_debian_12-gcc_13
auxiliary-machine-pgsql: x86_64-linux_debian_12-postgresql_16
auxiliary-machine: x86_64-linux_debian_12-redis_7
target: x86_64-linux-gnu
environment: default
target-config: config.cc.coptions=\"-O3 -g\"
from-the-future: x
warning-regex: \"^warning: \"
interactive: error
worker-checksum: 2
";

const MACHINE: &str = "\
: 1
id: windows_10-msvc_14-1.3
name: windows_10-msvc_14
summary: Windows 10 build 1607 with VC 14 update 3
role: auxiliary
ram-minimum: 2097152
ram-maximum: 4194304
type: kvm
mac: 02:1a:2b:3c:4d:5e
options:
\\
-device \"virtio-net-pci,netdev=net0,mac=?\"
-netdev tap,id=net0,ifname=?,script=no
\\
changes: first
colour: blue
changes: second
";

fn task(text: &str) -> Result<TaskManifest, String> {
    TaskManifest::parse(text.as_bytes(), "f").map_err(|e| e.to_string())
}

fn machine(text: &str) -> Result<MachineManifest, String> {
    MachineManifest::parse(text.as_bytes(), "f").map_err(|e| e.to_string())
}

/// The values of a machine, as a bootstrapped machine's manifest has them.
fn text_of(machine: &MachineManifest) -> String {
    let bootstrapped = BootstrappedMachine {
        machine: machine.clone(),
        toolchain: ToolchainManifest::new(""),
        bootstrap: BootstrapManifest::default(),
    };
    let text = bootstrapped.to_text(Style::TODAY).unwrap();
    let (_, machine) = text.split_once(":\n").unwrap();
    format!(
        ": 1\n{}",
        machine.strip_suffix(":\nid: bogus\n:\n").unwrap()
    )
}

#[test]
fn a_task_passes_without_loss() {
    let task = task(TASK).unwrap();
    assert_eq!(task.to_text(Style::TODAY).unwrap(), TASK);
    assert_eq!(task.name(), "libfoo");
    assert_eq!(task.version(), "1.2.3");
    assert_eq!(task.machine(), "x86_64-linux_debian_12-gcc_13");
    assert_eq!(task.interactive(), Some("error"));
    assert_eq!(task.worker_checksum(), Some("2"));
    assert_eq!(task.dependency_checksum(), Some("5b2e"));
    let needs = task.auxiliary_machines().unwrap();
    let needs = needs.iter().map(|n| (&*n.environment, &*n.machine));
    assert_eq!(
        needs.collect::<Vec<_>>(),
        [
            ("pgsql", "x86_64-linux_debian_12-postgresql_16"),
            ("", "x86_64-linux_debian_12-redis_7"),
        ]
    );
}

#[test]
fn a_task_of_2017_is_as_good() {
    let text = ": 1\nname: libfoo\nversion: 1.2.3\nrepository: https://pkg.cppget.org/1/alpha\n\
                machine: m\nconfig: config.cc.coptions=\"-O3 -g\"\n";
    let task = task(text).unwrap();
    assert_eq!(task.interactive(), None);
    assert_eq!(task.auxiliary_machines().unwrap(), []);
    assert_eq!(task.to_text(Style::OLD).unwrap(), text);
}

#[test]
fn our_trust_replaces_the_controllers_in_its_place() {
    let mut given = task(TASK).unwrap();
    given.replace_trust(&[]);
    assert_eq!(given.to_text(Style::TODAY).unwrap(), TASK);
    given.replace_trust(&[TRUST.to_owned(), "yes".to_owned()]);
    let long = format!("trust: {}\\\n{}\ntrust: yes", &TRUST[..70], &TRUST[70..]);
    let expected = TASK.replace("trust: yes", &long);
    assert_eq!(given.to_text(Style::TODAY).unwrap(), expected);

    let mut given = task(&TASK.replace("trust: yes\n", "")).unwrap();
    given.replace_trust(&["yes".to_owned()]);
    assert_eq!(given.to_text(Style::TODAY).unwrap(), TASK);
}

#[test]
fn an_empty_checksum_is_none_and_no_reason_to_lose_the_logs() {
    let text = b": 1\nname: p\nversion: 1\nstatus: success\nupdate-status: success\n\
                 update-log: done\nworker-checksum:\ndependency-checksum:\n";
    let result = ResultManifest::parse(text, "").unwrap();
    assert_eq!(result.results[0].log, "done");
    assert_eq!(result.worker_checksum, None);
    assert_eq!(result.dependency_checksum, None);
}

#[test]
fn checksums_are_dropped() {
    let mut given = task(TASK).unwrap();
    given.drop_checksums();
    let expected = TASK
        .replace("dependency-checksum: 5b2e\n", "")
        .replace("worker-checksum: 2\n", "");
    assert_eq!(given.to_text(Style::TODAY).unwrap(), expected);
    assert_eq!(
        (given.worker_checksum(), given.dependency_checksum()),
        (None, None)
    );
}

#[test]
fn errors_name_the_manifest_the_place_and_the_reason() {
    for (text, expected) in [
        ("", "f:1:1: task manifest expected"),
        (": 1\n", "f:2:1: no name specified"),
        (": 1\nname:\n", "f:2:6: empty name"),
        (": 1\nname: a\nname: b\n", "f:3:1: name redefinition"),
        (
            ": 1\nname: a\nversion: 1\n\n",
            "f:5:1: no machine specified",
        ),
        (
            ": 1\nname: a\nversion: 1\nmachine: m\n:\nx: y\n",
            "f:5:1: single task manifest expected",
        ),
        ("name: a\n", "f:1:1: format version pair expected"),
        (
            ": 1\nname: \u{1B}\n",
            "f:2:7: invalid manifest: invalid Unicode codepoint (control)",
        ),
    ] {
        let error = task(text).unwrap_err();
        assert_eq!(error, format!("invalid task manifest: {expected}"));
    }
    for (value, expected) in [
        ("type: kvm", "f:5:7: invalid type: unknown type 'qemu'"),
        (
            "role: auxiliary",
            "f:5:7: invalid role: unknown role 'qemu'",
        ),
        (
            "ram-minimum: 1",
            "f:5:14: invalid ram-minimum: unsigned integer expected",
        ),
        (
            "mac: 1",
            "f:5:6: invalid mac: six lower-case hexadecimal octets separated by colons expected",
        ),
    ] {
        let name = value.split_once(':').unwrap().0;
        let text = format!(": 1\nid: i\nname: n\nsummary: s\n{name}: qemu\ntype: kvm\n");
        let text = text.replace("type: qemu\ntype: kvm\n", "type: qemu\n");
        let error = machine(&text).unwrap_err();
        assert_eq!(error, format!("invalid machine manifest: {expected}"));
    }
    let error = machine(": 1\nid: i\nname: n\nsummary: s\ntype: kvm\noptions: \"x\n").unwrap_err();
    assert_eq!(
        error,
        "invalid machine manifest: f:6:10: invalid options: unterminated quoted string"
    );
}

#[test]
fn a_machine_manifest_keeps_what_it_does_not_know() {
    let mut machine = machine(MACHINE).unwrap();
    assert_eq!(text_of(&machine), MACHINE);
    assert_eq!(machine.kind(), MachineKind::Kvm);
    assert_eq!(machine.id(), "windows_10-msvc_14-1.3");
    assert_eq!(machine.name(), "windows_10-msvc_14");
    assert_eq!(machine.mac(), Some("02:1a:2b:3c:4d:5e"));
    assert_eq!(
        machine.options().unwrap(),
        [
            "-device",
            "virtio-net-pci,netdev=net0,mac=?",
            "-netdev",
            "tap,id=net0,ifname=?,script=no",
        ]
    );
    machine.set_mac("02:00:00:00:00:01");
    let changed = MACHINE.replace("02:1a:2b:3c:4d:5e", "02:00:00:00:00:01");
    assert_eq!(text_of(&machine), changed);
    let header = machine.header();
    assert_eq!(machine.role(), Role::Auxiliary);
    assert_eq!(machine.ram_minimum(), Some(2_097_152));
    assert_eq!(machine.ram_maximum(), Some(4_194_304));
    assert!(header.values().get("type").is_none());
}

#[test]
fn a_mac_address_goes_behind_the_type() {
    let header = MachineHeader::parse(b": 1\nid: i\nname: n\nsummary: s\n", "f").unwrap();
    let mut machine = MachineManifest::new(&header, MachineKind::Nspawn);
    assert_eq!(machine.kind(), MachineKind::Nspawn);
    machine.set_mac("02:00:00:00:00:01");
    assert_eq!(
        text_of(&machine),
        ": 1\nid: i\nname: n\nsummary: s\ntype: nspawn\nmac: 02:00:00:00:00:01\n"
    );
}

#[test]
fn a_bootstrapped_machine_is_four_manifests() {
    let mut machine = machine(": 1\nid: i\nname: n\nsummary: s\ntype: kvm\n").unwrap();
    machine.set_mac("de:ad:be:ef:de:ad");
    let bootstrapped = BootstrappedMachine {
        machine,
        toolchain: ToolchainManifest::new("tc1"),
        bootstrap: BootstrapManifest::new(
            ["bbot", "libbbot", "libbpkg", "libbutl"].map(|package| (package, "0.17.0")),
        ),
    };
    let text = bootstrapped.to_text(Style::TODAY).unwrap();
    // The serializer case `real-bootstrapped`.
    assert_eq!(
        text,
        ": 1\n:\nid: i\nname: n\nsummary: s\ntype: kvm\nmac: de:ad:be:ef:de:ad\n:\nid: tc1\n:\n\
         bbot-version: 0.17.0\nlibbbot-version: 0.17.0\nlibbpkg-version: 0.17.0\n\
         libbutl-version: 0.17.0\n"
    );
    let parse =
        |text: &str| BootstrappedMachine::parse(text.as_bytes(), "f").map_err(|e| e.to_string());
    assert_eq!(parse(&text).as_ref(), Ok(&bootstrapped));
    assert_eq!(parse(&text.replacen(":\n", "", 1)), Ok(bootstrapped));
    let error = |text: &str| parse(text).unwrap_err();
    assert_eq!(
        error(&text.replace("mac: de:ad:be:ef:de:ad\n", "")),
        "invalid machine manifest: f:7:1: no mac specified"
    );
    assert_eq!(
        error(": 1\n:\nid: i\nname: n\nsummary: s\ntype: kvm\nmac: de:ad:be:ef:de:ad\n"),
        "invalid toolchain manifest: f:8:1: toolchain manifest expected"
    );
    assert_eq!(
        error(": 1\n"),
        "invalid machine manifest: f:2:1: machine manifest expected"
    );
    assert_eq!(
        error(&format!("{text}:\nx: y\n")),
        "invalid bootstrap manifest: f:15:1: single bootstrap manifest expected"
    );
}

#[test]
fn an_upload_without_any_version_is_no_bootstrap_manifest() {
    let parse = |text: &str| BootstrapManifest::parse(text.as_bytes(), "f");
    let known = parse(": 1\nhost: h\nbbot-version: 0.17.0\n").unwrap();
    assert_eq!(known.version("bbot"), Some("0.17.0"));
    assert!(parse(": 1\n").is_ok());
    assert_eq!(
        parse(": 1\nname: foo\nversion: 1.0\nstatus: success\n")
            .unwrap_err()
            .to_string(),
        "invalid bootstrap manifest: f:5:1: no <package>-version specified"
    );
}

#[test]
fn a_toolchain_without_an_id_is_bogus() {
    assert_eq!(ToolchainManifest::new("").id(), "bogus");
}

#[test]
fn a_task_request_has_what_its_controller_knows() {
    let build = machine(&MACHINE.replace("role: auxiliary\n", "")).unwrap();
    let auxiliary = machine(MACHINE).unwrap();
    let mut request = TaskRequest {
        agent: "build-host-1".to_owned(),
        auxiliary_ram: 4096,
        machines: vec![build.for_request().into()],
        ..TaskRequest::default()
    };
    let of_2017 = "\
: 1
agent: build-host-1
:
id: windows_10-msvc_14-1.3
name: windows_10-msvc_14
summary: Windows 10 build 1607 with VC 14 update 3
";
    assert_eq!(request.to_text(Style::OLD).unwrap(), of_2017);
    request.toolchain = Some(("default".to_owned(), "0.17.0".to_owned()));
    request.fingerprint = Some("2d21".to_owned());
    request.machines = vec![auxiliary.for_request().into()];
    let today = "\
: 1
agent: build-host-1
toolchain-name: default
toolchain-version: 0.17.0
fingerprint: 2d21
auxiliary-ram: 4096
:
id: windows_10-msvc_14-1.3
name: windows_10-msvc_14
summary: Windows 10 build 1607 with VC 14 update 3
role: auxiliary
ram-minimum: 2097152
ram-maximum: 4194304
";
    assert_eq!(request.to_text(Style::TODAY).unwrap(), today);
}

#[test]
fn a_response_has_a_task_or_says_so() {
    let none = TaskResponse::parse(b": 1\nsession:\n", "f").unwrap();
    assert_eq!(none, None);
    let header = "\
: 1
session: /libfoo/1.2.3/x86_64-linux-gnu/1721906893123456789
challenge: 2d711642
result-url: https://ci.example.org/?build-result
bindist-upload-url: https://ci.example.org/?upload=bindist
agent-checksum: 1
from-the-future: x
";
    let text = header.to_owned() + &TASK.replacen(": 1\n", ":\n", 1);
    let response = TaskResponse::parse(text.as_bytes(), "f").unwrap().unwrap();
    assert_eq!(response.challenge.as_deref(), Some("2d711642"));
    assert_eq!(response.result_url, "https://ci.example.org/?build-result");
    assert_eq!(
        response.upload_urls,
        [(
            "bindist".to_owned(),
            "https://ci.example.org/?upload=bindist".to_owned()
        )]
    );
    assert_eq!(response.agent_checksum.as_deref(), Some("1"));
    assert_eq!(response.task, task(TASK).unwrap());
    let task = response.task.to_text(Style::TODAY).unwrap();
    assert_eq!(task, TASK);
    for (text, expected) in [
        (
            ": 1\nx: y\n",
            "invalid task response manifest: f:3:1: no session specified",
        ),
        (
            ": 1\nsession: s\n",
            "invalid task response manifest: f:3:1: no result-url specified",
        ),
        (
            ": 1\nsession: s\nresult-url: u\n",
            "invalid task manifest: f:4:1: task manifest expected",
        ),
        (
            "<html>",
            "invalid task response manifest: f:1:7: ':' expected after name",
        ),
    ] {
        let error = TaskResponse::parse(text.as_bytes(), "f").unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
