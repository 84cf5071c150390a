//! Launches of real processes, with busybox as the image. They need root.

mod bench;
mod cgroups;
mod container;
mod failures;
mod join;
mod kit;
mod lent;
mod terminal;
mod user;
