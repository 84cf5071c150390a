//! What a pod costs, under Corten and under its peers: measured over the CRI
//! socket alone, as the kubelet would feel it.
//!
//! | folder | what |
//! |---|---|
//! | `runtimes` | who is measured: recipes, and runtimes that run |
//! | `home` | where each of them lives, apart from the others and from the machine |
//! | `operations` | what is measured, each in one file |
//! | `measure` | what the kernel says: processes, cgroups, the machine |
//! | `floor` | what the kernel alone needs for the same pod |
//! | `report` | figures as data and as tables |
//! | `plot` | and as pictures; `aims` are the lines in them |
#![forbid(unsafe_code)]

pub mod aims;
pub mod floor;
pub mod home;
pub mod measure;
pub mod operations;
pub mod output;
pub mod plan;
pub mod plot;
pub mod report;
pub mod runtimes;
pub mod session;
