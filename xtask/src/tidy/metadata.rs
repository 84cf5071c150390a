//! What cargo knows of the workspace and its dependencies.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::shell;

/// One package, ours or another's.
pub struct Package {
    pub name: String,
    pub version: String,
    pub licence: Option<String>,
    /// Names of what its manifest lists.
    pub dependencies: Vec<String>,
    /// From a registry, and not of this workspace.
    pub foreign: bool,
}

/// The packages that our programs and tests are made of.
pub struct Metadata {
    pub packages: Vec<Package>,
}

impl Metadata {
    pub fn read() -> Result<Self> {
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let asked = ["metadata", "--format-version", "1", "--filter-platform", &target];
        let text = shell::output(&mut shell::cargo(asked))?;
        Self::parse(&text).context("unable to understand cargo metadata")
    }

    fn parse(text: &str) -> Result<Self> {
        let all: Value = serde_json::from_str(text)?;
        let reached = reached(&all);
        let packages = list(&all["packages"])
            .filter(|package| reached.contains(text_of(&package["id"])))
            .map(|package| Package {
                name: text_of(&package["name"]).to_owned(),
                version: text_of(&package["version"]).to_owned(),
                licence: package["license"].as_str().map(str::to_owned),
                dependencies: list(&package["dependencies"])
                    .map(|dependency| text_of(&dependency["name"]).to_owned())
                    .collect(),
                foreign: !package["source"].is_null(),
            })
            .collect();
        Ok(Self { packages })
    }

    pub fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }
}

/// The ids of everything that the members need on this platform: metadata
/// lists more.
fn reached(all: &Value) -> BTreeSet<&str> {
    let nodes: BTreeMap<&str, &Value> =
        list(&all["resolve"]["nodes"]).map(|node| (text_of(&node["id"]), node)).collect();
    let mut pending: Vec<&str> = list(&all["workspace_members"]).map(text_of).collect();
    let mut reached = BTreeSet::new();
    while let Some(id) = pending.pop() {
        if reached.insert(id)
            && let Some(node) = nodes.get(id)
        {
            pending.extend(list(&node["deps"]).map(|dependency| text_of(&dependency["pkg"])));
        }
    }
    reached
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
