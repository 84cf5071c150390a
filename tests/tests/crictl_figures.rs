//! What crictl shows of figures, metrics and events.

use std::io::{BufRead, BufReader};

use corten_tests::tool::Tool;
use corten_tests::{Machine, Scene};
use serde_json::Value;

#[test]
fn crictl_shows_figures_and_events() {
    Machine::run(async |machine, daemon| {
        let crictl = Tool::crictl(machine, daemon);
        let mut events = crictl.start(&["events"]);
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        let id = scene.idle(|_| {}).await;
        let stats = crictl.json(&["stats", "--seconds", "0", "-o", "json"]);
        let [stats] = &stats["stats"].as_array().expect("a list")[..] else { panic!("{stats}") };
        assert_eq!(stats["attributes"]["id"], Value::from(id.as_str()));
        assert!(stats["cpu"]["usageCoreNanoSeconds"]["value"].is_string(), "{stats}");
        let table = crictl.run(&["stats", "--seconds", "0"]);
        assert!(table.contains(&id[..13]), "{table}");
        let pods = crictl.json(&["statsp", "--seconds", "0", "-o", "json"]);
        let network = &pods["stats"][0]["linux"]["network"]["defaultInterface"];
        assert_eq!(network["name"], "eth0", "{pods}");
        assert!(crictl.run(&["statsp", "--seconds", "0"]).contains(&scene.id[..13]));
        let described = crictl.json(&["metricdescs", "-o", "json"]);
        assert_eq!(described["descriptors"].as_array().expect("a list").len(), 56);
        let metrics = crictl.json(&["metricsp", "-o", "json"]);
        assert_eq!(metrics["podMetrics"][0]["podSandboxId"], Value::from(scene.id.as_str()));

        // Events come as JSON, one after the other.
        let output = events.stdout.take().expect("its output");
        let mut text = String::new();
        let mut told = Vec::new();
        for line in BufReader::new(output).lines() {
            text.push_str(&line.expect("a line"));
            if let Ok(event) = serde_json::from_str::<Value>(&text) {
                text.clear();
                let done = event["containerId"] == id.as_str()
                    && event["containerEventType"] == "CONTAINER_STARTED_EVENT";
                told.push(event);
                if done {
                    break;
                }
            }
        }
        assert_eq!(told.len(), 4, "{told:?}");
        assert_eq!(told[3]["podSandboxStatus"]["id"], Value::from(scene.id.as_str()));
        assert_eq!(told[3]["containersStatuses"][0]["state"], "CONTAINER_RUNNING");
        events.kill().expect("it is killed");
        events.wait().expect("it is reaped");
    });
}
