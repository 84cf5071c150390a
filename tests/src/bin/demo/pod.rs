//! The life that is shown, step by step.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use corten_api::cri;
use corten_tests::client::{Container, Pod, log_path};
use corten_tests::drift;
use corten_tests::images::PAGE;
use corten_tests::{Client, Daemon, Machine, until};

use crate::show::{Show, size, time};

/// A running pod of two containers.
struct Running {
    id: String,
    address: String,
    web: String,
    shell: String,
}

/// From the first pull to the last removal.
pub async fn life(show: &mut Show, machine: &Machine, daemon: &mut Daemon) -> Result<()> {
    show.step("A registry with two images made of Debian's packages, and the daemon");
    let images = [machine.image("busybox"), machine.image("nginx")];
    show.call("docker-registry serve");
    show.result(&images.join("\n"));
    show.call(&format!("cortend --config {}", machine.path("config.toml").display()));
    let mut client = daemon.client().await;
    let version = client.runtime.version(cri::VersionRequest::default()).await?.into_inner();
    show.result(&format!(
        "{} {}, CRI {}, pid {}",
        version.runtime_name,
        version.runtime_version,
        version.runtime_api_version,
        daemon.pid()
    ));
    pull(show, &mut client, &images).await?;
    let pod = Pod::new(machine, "demo");
    let server = Container::new("web", &images[1], &[]);
    let shell = Container::shell("shell", &images[0], "exec sleep 1000000");
    let running = run(show, &mut client, &pod, [&server, &shell]).await?;
    visit(show, &mut client, &running).await?;
    show.step("Its log, as the kubelet reads it");
    let log = log_path(&pod, &server);
    show.call(&format!("tail -n 1 {}", log.display()));
    let line = until("the visit is in the log", async || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.lines().rfind(|line| line.contains("GET /")).map(str::to_owned)
    })
    .await;
    show.result(&line);
    memory(show, machine, daemon);
    let before = pid(&mut client, &running.web).await?;
    let client = kill_the_daemon(show, daemon, &running, before).await?;
    end(show, client, &running).await
}

async fn pull(show: &mut Show, client: &mut Client, images: &[String]) -> Result<()> {
    show.step("Pull the images");
    for image in images {
        show.call(&format!("PullImage {image}"));
        let begun = Instant::now();
        let id = client.pull(image).await?;
        show.result(&format!("{id} in {}", time(begun.elapsed())));
    }
    Ok(())
}

async fn run(
    show: &mut Show,
    client: &mut Client,
    pod: &Pod,
    containers: [&Container; 2],
) -> Result<Running> {
    show.step("A pod of two containers");
    show.call("RunPodSandbox demo");
    let begun = Instant::now();
    let id = client.run_pod(pod).await?;
    let started = time(begun.elapsed());
    let address = client.pod_ip(&id).await;
    show.result(&format!("{id}\naddress {address}, in {started}"));
    let mut ids = Vec::new();
    for container in containers {
        let name = &container.config.metadata.as_ref().context("it has a name")?.name;
        show.call(&format!("CreateContainer {name}; StartContainer {name}"));
        let begun = Instant::now();
        let id = client.run(&id, pod, container).await?;
        show.result(&format!("{id}\nruns after {}", time(begun.elapsed())));
        ids.push(id);
    }
    let [web, shell] = <[String; 2]>::try_from(ids).ok().context("two containers")?;
    Ok(Running { id, address, web, shell })
}

/// The page, fetched by the other container over the pod's own network.
async fn visit(show: &mut Show, client: &mut Client, running: &Running) -> Result<()> {
    show.step("The page of one container, fetched from the other over the pod's network");
    let page = fetch(show, client, running).await?;
    ensure!(page == PAGE, "that is not the page that the web server has: {page:?}");
    show.step("What the container sees of itself");
    for script in ["hostname", "ps", "ip -4 addr show dev eth0"] {
        show.call(&format!("ExecSync shell: {script}"));
        show.result(&client.shell(&running.shell, script).await);
    }
    Ok(())
}

async fn fetch(show: &Show, client: &mut Client, running: &Running) -> Result<String> {
    let url = format!("http://{}/", running.address);
    show.call(&format!("ExecSync shell: wget -q -O - {url}"));
    let wget = ["wget", "-q", "-O", "-", &url];
    // A web server needs a moment.
    let page = until("the web server answers", async || {
        let (code, stdout, _) = client.exec(&running.shell, &wget, 10).await.ok()?;
        (code == 0).then_some(stdout)
    })
    .await;
    show.result(&page);
    Ok(page)
}

fn memory(show: &mut Show, machine: &Machine, daemon: &Daemon) {
    show.step("What it costs in memory (PSS: its fair share of what is shared)");
    for pid in drift::shims(machine) {
        show.call(&format!("grep Pss /proc/{pid}/smaps_rollup"));
        show.result(&format!(
            "corten-shim, all that stands by the pod: {}, of which {} are this pod's own\n\
             (the rest is the program, which all pods share)",
            pss(&pid, "Pss:"),
            pss(&pid, "Pss_Anon:")
        ));
    }
    let pid = daemon.pid().to_string();
    show.call(&format!("grep Pss: /proc/{pid}/smaps_rollup"));
    show.result(&format!(
        "cortend, once for the node: {} (built quickly; `make build` makes it smaller)",
        pss(&pid, "Pss:")
    ));
}

/// A proportional set size of a process.
fn pss(pid: &str, key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kibibytes.map_or_else(|| "unknown".to_owned(), |number: u64| size(number * 1024))
}

async fn kill_the_daemon(
    show: &mut Show,
    daemon: &mut Daemon,
    running: &Running,
    before: u64,
) -> Result<Client> {
    show.step("The daemon is killed, and the pod does not notice");
    show.call(&format!("kill -9 {}", daemon.pid()));
    daemon.kill();
    show.result(&format!(
        "nginx with pid {before} {}",
        if std::path::Path::new(&format!("/proc/{before}")).exists() {
            "runs on"
        } else {
            "is gone"
        }
    ));
    show.call("cortend");
    let begun = Instant::now();
    daemon.start_again().await;
    show.result(&format!("serves again as pid {} after {}", daemon.pid(), time(begun.elapsed())));
    let mut client = daemon.client().await;
    show.call("ContainerStatus web");
    let status = client.status(&running.web).await?;
    let after = pid(&mut client, &running.web).await?;
    let state = cri::ContainerState::try_from(status.state)?.as_str_name().to_owned();
    show.result(&format!("{state}, pid {after}"));
    ensure!(before == after, "pid {before} became {after}");
    let page = fetch(show, &mut client, running).await?;
    ensure!(page == PAGE, "that is not the page that the web server has: {page:?}");
    Ok(client)
}

/// The pid of a container's first process.
async fn pid(client: &mut Client, id: &str) -> Result<u64> {
    let request = cri::ContainerStatusRequest { container_id: id.into(), verbose: true };
    let response = client.runtime.container_status(request).await?.into_inner();
    let info = response.info.get("info").context("a verbose status has details")?;
    let info: serde_json::Value = serde_json::from_str(info)?;
    info["pid"].as_u64().context("a running container has a pid")
}

async fn end(show: &mut Show, mut client: Client, running: &Running) -> Result<()> {
    show.step("The end");
    show.call("StopContainer web (SIGQUIT, as its image asks)");
    let begun = Instant::now();
    client.stop(&running.web, 10).await?;
    let code = client.status(&running.web).await?.exit_code;
    show.result(&format!("ended with {code} after {}", time(begun.elapsed())));
    show.call("StopPodSandbox demo; RemovePodSandbox demo; RemoveImage");
    let begun = Instant::now();
    client.stop_pod(&running.id).await?;
    client.remove_pod(&running.id).await?;
    client.remove_everything().await;
    show.result(&format!("removed after {}", time(begun.elapsed())));
    Ok(())
}
