//! Pictures show what reports hold, inside their frames.

use super::svg::{head_width_of, small_width_of};
use super::*;
use crate::operations::catalogue::IDLE_DAEMON;
use crate::report::{Operation, Runtime, Unit};

/// A report like a real one.
fn sample() -> Report {
    let mut report = Report::default();
    for (name, value) in [
        ("date", "2026-11-21 20:00 UTC"),
        ("processor", "AMD EPYC 9B14 <test>"),
        ("cores", "2"),
        ("kernel", "6.18.5"),
        ("cgroups", "v1, with v2 beside it (hybrid)"),
        ("commit", "0123abc"),
    ] {
        report.fact(name, value);
    }
    let runtimes = [
        ("Corten", Role::Corten, 1.0),
        ("Corten with CNI plugins", Role::Corten, 5.0),
        ("containerd+runc", Role::Peer, 16.0),
        ("containerd+crun", Role::Peer, 12.0),
        ("CRI-O+crun", Role::History, 9.5),
        ("containerd 2.3.4+runc 1.5", Role::History, 14.0),
        ("floor", Role::Floor, 0.6),
    ];
    for (name, role, factor) in runtimes {
        let (name, network) = (name.to_owned(), "bridge".to_owned());
        report.runtimes.push(Runtime { name: name.clone(), role, network, versions: Vec::new() });
        for aim in crate::aims::AIMS {
            let unit = if aim.value > 700.0 { Unit::Kilobytes } else { Unit::Milliseconds };
            let median = aim.value * factor * 0.9;
            let values = (0..20).map(|at| median * (0.9 + f64::from(at * at) / 900.0));
            report.add(&name, &Operation::new(aim.key, aim.key), aim.pods, unit, values);
        }
        for pods in [1, 50, 110, 300, 1000] {
            let up = f64::from(pods) * 10.0 * factor;
            let key = Operation::new("crowd-up", "pods up");
            report.add(&name, &key, Some(pods), Unit::Milliseconds, [up]);
            let memory = 9_000.0 * factor + f64::from(pods) * 40.0;
            let key = Operation::new("daemon-pss", "daemon PSS");
            report.add(&name, &key, Some(pods), Unit::Kilobytes, [memory]);
        }
    }
    report
}

/// All numbers that follow this in a picture.
fn numbers(picture: &str, before: &str) -> Vec<f64> {
    let parts = picture.split(before).skip(1);
    parts.filter_map(|part| part.split('"').next()?.parse().ok()).collect()
}

#[test]
fn pictures_are_written_and_nothing_leaves_them() {
    let directory = tempfile::tempdir().expect("a directory");
    write(&sample(), directory.path()).expect("pictures");
    for name in ["operations.svg", "latency.svg", "growth.svg"] {
        let text = std::fs::read_to_string(directory.path().join(name)).expect("a picture");
        let height = numbers(&text, " height=\"")[0];
        for (before, most) in
            [("x=\"", WIDTH), ("y=\"", height), ("cx=\"", WIDTH), ("y2=\"", height)]
        {
            let all = numbers(&text, &format!(" {before}"));
            let outside = all.iter().find(|value| **value < 0.0 || **value > most);
            assert_eq!(outside, None, "{name}: {before}");
        }
        assert!(!text.contains("containerd 2.3.4"), "{name}: it was measured now");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{name}");
        assert!(text.contains("CRI-O+crun (history)") || name == "latency.svg", "{name}");
        assert!(text.contains("AMD EPYC 9B14 &lt;test&gt;"), "{name}");
    }
}

/// Texts as `(y, from, to)`, as wide as they may be.
fn texts(picture: &str) -> Vec<(f64, f64, f64, String)> {
    let of = |head: &str, name: &str| -> String {
        let value = head.split(&format!("{name}=\"")).nth(1).and_then(|it| it.split('"').next());
        value.expect("an attribute").to_owned()
    };
    let all = picture.split("<text ").skip(1).map(|part| {
        let (head, rest) = part.split_once('>').expect("a whole element");
        let text = rest.split("</text>").next().expect("its end").to_owned();
        let class = of(head, "class");
        let width = match class.split(' ').next() {
            Some("head") => head_width_of(&text),
            Some("small") => small_width_of(&text),
            _ => width_of(&text),
        };
        let [x, y]: [f64; 2] =
            ["x", "y"].map(|name| of(head, &format!(" {name}")).parse().unwrap());
        let from = match of(head, "text-anchor").as_str() {
            "start" => x,
            "middle" => x - width / 2.0,
            _ => x - width,
        };
        (y, from, from + width, text)
    });
    all.collect()
}

#[test]
fn no_text_touches_another() {
    let mut report = sample();
    for series in &mut report.series {
        let (long, title) = IDLE_DAEMON;
        if series.operation.key == long {
            series.operation.title = title.into();
        }
    }
    for picture in [bars::draw, latency::draw, growth::draw] {
        let mut all = texts(&picture(&report).expect("a picture"));
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        for pair in all.windows(2) {
            let [(y, _, end, text), (below, from, _, next)] = pair else { continue };
            assert!(y != below || end <= from, "{text:?} touches {next:?}");
        }
    }
}

#[test]
fn an_empty_report_has_no_pictures() {
    let directory = tempfile::tempdir().expect("a directory");
    write(&Report::default(), directory.path()).expect("nothing is written");
    assert_eq!(std::fs::read_dir(directory.path()).expect("a list").count(), 0);
}

#[test]
fn roles_have_their_colours() {
    let looks = looks(&sample());
    let colours: Vec<usize> = looks.iter().map(|look| look.colour).collect();
    assert_eq!(colours, [0, 1, 2, 3, 4, 5]);
    assert_eq!(looks[2].role, Role::Floor);
}
