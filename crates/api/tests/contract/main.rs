//! Our transcription of CRI v1 is the contract that Kubernetes publishes.
//!
//! Both are put into text, one line for each thing that matters on the wire,
//! and compared with `published.txt`. That file is checked against the Go
//! module `k8s.io/cri-api` itself wherever Go and the module are at hand, and
//! written anew from it by `UPDATE=1 cargo test -p corten-api --test contract`.

mod describe;

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use describe::describe;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The published contract as text, as it is kept here.
fn fixture() -> &'static str {
    static FIXTURE: OnceLock<String> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let path = here().join("tests/contract/published.txt");
        if updating() {
            let descriptor = published().expect("updating needs Go");
            std::fs::write(&path, describe(&descriptor)).expect("the fixture is written");
        }
        std::fs::read_to_string(&path).expect("the fixture")
    })
}

fn updating() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// Prints the published descriptor; nothing where Go or the module is missing.
fn published() -> Option<Vec<u8>> {
    let module = here().join("../../tests/go/descriptor");
    let go = |arguments: &[&str]| {
        let mut command = Command::new("go");
        command.args(arguments).current_dir(&module);
        // No test reaches for the network, unless it is asked to.
        command.env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=readonly -buildvcs=false");
        if !updating() {
            command.env("GOPROXY", "off");
        }
        command.output()
    };
    let known = go(&["list", "-deps", "."]);
    if !known.is_ok_and(|output| output.status.success()) && !updating() {
        eprintln!("skipped: go 1.26 with k8s.io/cri-api in its module cache is not here");
        return None;
    }
    let output = go(&["run", "."]).expect("go was there a moment ago");
    assert!(output.status.success(), "go run: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// Fails with the lines that only one side has.
fn compare(what: &str, ours: &str, theirs: &str) {
    let missing: Vec<&str> =
        theirs.lines().filter(|line| !ours.lines().any(|other| other == *line)).collect();
    let surplus: Vec<&str> =
        ours.lines().filter(|line| !theirs.lines().any(|other| other == *line)).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "{what}\n  missing: {missing:#?}\n  too much: {surplus:#?}"
    );
    assert_eq!(ours, theirs, "{what}: only the order differs");
}

#[test]
fn the_transcription_is_the_published_contract() {
    let mut compiler = protox::Compiler::new([here().join("proto")]).expect("the directory");
    compiler.open_file("runtime.proto").expect("runtime.proto compiles");
    let set = describe::only_file(&compiler.encode_file_descriptor_set());
    compare("runtime.proto differs from published.txt", &describe(&set), fixture());
}

#[test]
fn the_fixture_is_what_kubernetes_publishes() {
    if let Some(descriptor) = published() {
        compare("published.txt differs from k8s.io/cri-api", fixture(), &describe(&descriptor));
    }
}

#[test]
fn the_fixture_holds_the_whole_contract() {
    let text = fixture();
    let calls = |service: &str| {
        text.lines().filter(|line| line.starts_with(&format!("service {service} "))).count()
    };
    assert_eq!(calls("RuntimeService"), 37);
    assert_eq!(calls("ImageService"), 6);
    for line in [
        "message KeyValue 2 value: bytes",
        "message AuthConfig 2 password: string redacted",
        "message ContainerConfig 17 CDI_devices: repeated CDIDevice",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}");
    }
}
