//! The arithmetic of figures, and that tables hold what reports hold.

use super::*;

fn runtime(name: &str, role: Role) -> Runtime {
    Runtime { name: name.into(), role, network: "bridge".into(), versions: vec!["x 1".into()] }
}

fn start() -> Operation {
    Operation::new("pod-start", "pod start")
}

fn sample() -> Report {
    let mut report = Report::default();
    report.fact("kernel", "6.18");
    report.runtimes = vec![
        runtime("corten", Role::Corten),
        runtime("slow", Role::Peer),
        runtime("fast", Role::Peer),
        runtime("CRI-O+crun", Role::History),
    ];
    report.add("corten", &start(), None, Unit::Milliseconds, [12.0, 10.0]);
    report.add("slow", &start(), None, Unit::Milliseconds, [191.0]);
    report.add("fast", &start(), None, Unit::Milliseconds, [110.0]);
    report.add("CRI-O+crun", &start(), None, Unit::Milliseconds, [5.0]);
    report.add("corten", &start(), None, Unit::Milliseconds, [11.0]);
    report.add("slow", &start(), Some(50), Unit::Milliseconds, [6100.0]);
    report.failures.push(Failure {
        runtime: "fast".into(),
        operation: "pod start".into(),
        pods: Some(50),
        error: "it | fell\nover".into(),
    });
    report
}

fn series(values: &[f64]) -> Series {
    Series {
        runtime: "corten".into(),
        operation: start(),
        pods: None,
        unit: Unit::Milliseconds,
        values: values.to_vec(),
    }
}

#[test]
fn medians() {
    assert_eq!(series(&[3.0, 1.0, 2.0]).median(), 2.0);
    assert_eq!(series(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
    assert_eq!(series(&[7.0]).median(), 7.0);
    assert!(series(&[]).median().is_nan());
}

#[test]
fn quantiles_are_values_that_were_measured() {
    let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
    let all = series(&hundred);
    assert_eq!((all.min(), all.p90(), all.p99(), all.quantile(1.0)), (1.0, 90.0, 99.0, 100.0));
    let few = series(&[1.0, 2.0, 3.0]);
    assert_eq!((few.p90(), few.p99()), (3.0, 3.0), "of few values, the largest");
    assert_eq!(few.quantile(0.0), 1.0);
    assert!(series(&[]).p99().is_nan());
}

#[test]
fn values_gather_in_one_series() {
    let report = sample();
    let ours = report.find("corten", "pod-start", None).expect("a series");
    assert_eq!(ours.values, [12.0, 10.0, 11.0], "in the order in which they came");
    let mut empty = Report::default();
    empty.add("corten", &start(), None, Unit::Milliseconds, []);
    assert_eq!(empty, Report::default(), "nothing measured is no series");
}

#[test]
fn the_best_peer_is_one_that_was_measured_now() {
    let report = sample();
    let ours = report.find("corten", "pod-start", None).expect("a series");
    assert_eq!(report.best_peer("pod-start", None).expect("a peer").runtime, "fast");
    assert_eq!(report.ahead(ours), Some(10.0));
    assert_eq!(report.best_peer("pod-start", Some(300)), None);
    let idle = Series { values: vec![0.0], ..ours.clone() };
    assert_eq!(report.ahead(&idle), None, "nobody is infinitely ahead");
}

#[test]
fn rows_are_in_the_order_of_measuring() {
    let report = sample();
    let rows: Vec<_> = report.rows().iter().map(|(name, pods)| (name.key.clone(), *pods)).collect();
    assert_eq!(rows, [("pod-start".to_owned(), None), ("pod-start".to_owned(), Some(50))]);
}

#[test]
fn json_comes_back_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("bench.json");
    sample().write(&path).expect("it is written");
    assert_eq!(Report::read(&path).expect("it is read"), sample());
    std::fs::write(&path, "{}").expect("a file");
    assert!(Report::read(&path).is_err());
}

#[test]
fn tables() {
    let terminal = text(&sample());
    assert!(terminal.contains("Best peer missing"), "{terminal}");
    let row = terminal.lines().find(|line| line.starts_with("pod start  ")).expect("a row");
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells, ["pod", "start", "ms", "11.0", "191", "110", "5.00", "10.0×"]);
    let markdown = markdown(&sample());
    assert!(markdown.contains("| pod start | 50 | ms | – | 6,100 | – | – |  |"), "{markdown}");
    assert!(markdown.contains("it \\| fell over"), "{markdown}");
}

#[test]
fn numbers() {
    assert_eq!([9.994, 9.996, 99.94, 99.96].map(table::number), ["9.99", "10.0", "99.9", "100"]);
    let told = [0.0, 0.534, 12.44, 999.6, 1070.0, 1_234_567.0, -1234.0].map(table::number);
    assert_eq!(told, ["0.00", "0.53", "12.4", "1,000", "1,070", "1,234,567", "-1,234"]);
}
