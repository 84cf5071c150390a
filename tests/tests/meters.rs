//! What the daemon counts about itself.

use std::io::{Read, Write};
use std::net::TcpStream;

use corten_tests::machine::Settings;
use corten_tests::{Machine, Scene};

const ADDRESS: &str = "127.0.0.1:9100";

/// The answer to a request: head and body.
fn ask(request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(ADDRESS).expect("somebody listens");
    stream.write_all(request.as_bytes()).expect("it is asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_owned(), body.to_owned())
}

fn value(page: &str, sample: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in {page}")).parse().expect("a number")
}

#[test]
fn prometheus_reads_what_was_counted() {
    let configuration = format!("\n[metrics]\naddress = \"{ADDRESS}\"\n");
    let settings = Settings { builtin_network: true, configuration, ..Settings::default() };
    Machine::run_with(settings, async |machine, daemon| {
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let id = scene.idle(|_| {}).await;
        scene.client.shell(&id, "true").await;
        scene.client.status(&"0".repeat(64)).await.expect_err("there is no such container");
        // One who asks nothing disturbs nobody.
        let _silent = TcpStream::connect(ADDRESS).expect("somebody listens");
        let (head, page) = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("version=0.0.4"), "{head}");

        let method = "method=\"runtime.v1.RuntimeService/ContainerStatus\"";
        let call = format!("corten_grpc_requests_total{{{method},code=\"NotFound\"}}");
        assert_eq!(value(&page, &call), 1.0);
        let run = "{method=\"runtime.v1.RuntimeService/RunPodSandbox\"}";
        assert_eq!(value(&page, &format!("corten_grpc_duration_seconds_count{run}")), 1.0);
        for operation in
            ["network_attach", "sandbox_run", "container_create", "container_start", "exec"]
        {
            let labels = format!("{{operation=\"{operation}\"}}");
            let count = format!("corten_operation_duration_seconds_count{labels}");
            assert_eq!(value(&page, &count), 1.0, "{operation}");
            assert_eq!(value(&page, &format!("corten_operation_failures_total{labels}")), 0.0);
        }
        assert_eq!(value(&page, "corten_pods{state=\"ready\"}"), 1.0);
        assert_eq!(value(&page, "corten_containers{state=\"running\"}"), 1.0);
        assert_eq!(value(&page, "corten_shims_lost_total"), 0.0);
        assert_eq!(value(&page, "corten_pull_duration_seconds_count"), 1.0);
        assert!(value(&page, "process_cpu_seconds_total") > 0.0);
        assert!(value(&page, "process_resident_memory_bytes") > 1e6);
        assert!(value(&page, "process_open_fds") > 5.0);
        // Every sample belongs to a metric that was begun.
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let begun = |name: &str| page.contains(&format!("# TYPE {name} "));
            let parts = ["_bucket", "_sum", "_count"];
            let of_histogram = parts.iter().any(|part| name.strip_suffix(part).is_some_and(begun));
            assert!(begun(name) || of_histogram, "{line}");
        }

        assert!(ask("GET / HTTP/1.0\r\n\r\n").0.starts_with("HTTP/1.1 404"));
        assert!(ask("POST /metrics HTTP/1.0\r\n\r\n").0.starts_with("HTTP/1.1 405"));
    });
}
