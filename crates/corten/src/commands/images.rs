//! `corten images`: the images.

use corten_api::corten::{ImageSummary, ListImagesRequest};
use serde::Serialize;

use crate::client::Place;
use crate::error::{Doing, Result};
use crate::output::{self, Output, Table, ago, rfc3339, short_id, size};

/// Shown where an image has no name or tag.
const NONE: &str = "<none>";

/// List images
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print ids only
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
    /// Cut nothing short
    #[arg(long)]
    no_trunc: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    #[command(flatten)]
    output: Output,
    /// Only those that this name or id means
    image: Option<String>,
}

/// An image, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    id: &'a str,
    tags: &'a [String],
    digests: &'a [String],
    size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    containers: u32,
}

impl Arguments {
    /// Prints them.
    pub async fn run(self, place: &Place) -> Result<u8> {
        let daemon = place.connect().await?;
        let request = ListImagesRequest {
            namespace: daemon.space(),
            filter: self.image.clone().unwrap_or_default(),
        };
        let answer = daemon.calls().list_images(request).await.doing("list images")?;
        let images = answer.into_inner().images;
        if self.quiet {
            let id = |image: &ImageSummary| format!("{}\n", self.id(image));
            output::print(&images.iter().map(id).collect::<String>())?;
        } else if self.output.json() {
            output::print_json(&images.iter().map(row).collect::<Vec<_>>())?;
        } else {
            output::print(&self.table(&images, output::now_ns()))?;
        }
        Ok(0)
    }

    fn id<'a>(&self, image: &'a ImageSummary) -> &'a str {
        if self.no_trunc { &image.id } else { short_id(&image.id) }
    }

    fn table(&self, images: &[ImageSummary], now_ns: i64) -> String {
        let digests = self.digests.then_some("DIGEST");
        let headings = ["REPOSITORY", "TAG"].into_iter().chain(digests);
        let mut table = Table::new(headings.chain(["IMAGE ID", "CREATED", "SIZE"]));
        for image in images {
            for (repository, tag, digest) in names(image) {
                let digest = self.digests.then(|| digest.to_owned());
                let cells = [repository.to_owned(), tag.to_owned()].into_iter().chain(digest);
                table.row(cells.chain([
                    self.id(image).to_owned(),
                    ago(image.created_at_ns, now_ns),
                    size(image.size_bytes),
                ]));
            }
        }
        table.render()
    }
}

/// The repositories, tags and digests under which an image is known: a line
/// each.
fn names(image: &ImageSummary) -> Vec<(&str, &str, &str)> {
    let digests: Vec<(&str, &str)> =
        image.digests.iter().filter_map(|reference| reference.split_once('@')).collect();
    let digest_of = |repository: &str| {
        digests.iter().find(|(name, _)| *name == repository).map_or(NONE, |(_, digest)| *digest)
    };
    let mut names: Vec<_> = image
        .tags
        .iter()
        .map(|reference| {
            let (repository, tag) = tagged(reference);
            (repository, tag, digest_of(repository))
        })
        .collect();
    for (repository, digest) in &digests {
        if !names.iter().any(|(known, ..)| known == repository) {
            names.push((repository, NONE, digest));
        }
    }
    if names.is_empty() { vec![(NONE, NONE, NONE)] } else { names }
}

/// A registry may have a port: only what is behind the last `/` has a tag.
fn tagged(reference: &str) -> (&str, &str) {
    let name_at = reference.rfind('/').map_or(0, |at| at + 1);
    match reference[name_at..].find(':') {
        Some(at) => (&reference[..name_at + at], &reference[name_at + at + 1..]),
        None => (reference, NONE),
    }
}

fn row(image: &ImageSummary) -> Row<'_> {
    Row {
        id: &image.id,
        tags: &image.tags,
        digests: &image.digests,
        size_bytes: image.size_bytes,
        created_at: (image.created_at_ns != 0).then(|| rfc3339(image.created_at_ns)),
        containers: image.containers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(tags: &[&str], digests: &[&str]) -> ImageSummary {
        ImageSummary {
            id: "sha256:0123456789abcdef0123".into(),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            digests: digests.iter().map(|&digest| digest.to_owned()).collect(),
            size_bytes: 4_270_000,
            ..Default::default()
        }
    }

    #[test]
    fn every_name_has_a_line() {
        let tagged = image(
            &["localhost:5000/a/b:1", "docker.io/library/c:2"],
            &["localhost:5000/a/b@sha256:aa", "x.io/y@sha256:bb"],
        );
        assert_eq!(
            names(&tagged),
            [
                ("localhost:5000/a/b", "1", "sha256:aa"),
                ("docker.io/library/c", "2", NONE),
                ("x.io/y", NONE, "sha256:bb"),
            ]
        );
        assert_eq!(names(&image(&[], &[])), [(NONE, NONE, NONE)]);
        assert_eq!(super::tagged("localhost:5000/x"), ("localhost:5000/x", NONE));
    }

    #[test]
    fn people_see_a_table() {
        let arguments = Arguments {
            quiet: false,
            no_trunc: false,
            digests: false,
            output: Output { output: output::Format::Table },
            image: None,
        };
        let text = arguments.table(&[image(&["docker.io/library/c:2"], &[])], 0);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "REPOSITORY            TAG   IMAGE ID        CREATED   SIZE");
        assert_eq!(lines[1], "docker.io/library/c   2     0123456789abc             4.27 MB");
    }
}
