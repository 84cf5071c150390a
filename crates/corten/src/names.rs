//! Names for containers that are given none: an adjective and a noun.

use std::hash::{BuildHasher, Hasher};

const ADJECTIVES: [&str; 64] = [
    "amber", "bold", "brave", "bright", "brisk", "calm", "candid", "cheerful", "clear", "clever",
    "copper", "cosy", "crisp", "curious", "deft", "eager", "early", "fair", "fearless", "fleet",
    "fond", "fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "humble",
    "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry", "mild", "neat",
    "nimble", "noble", "patient", "plain", "polite", "proud", "quick", "quiet", "ready", "robust",
    "rosy", "rusty", "sharp", "silent", "smooth", "snug", "sober", "steady", "sunny", "swift",
    "tidy", "warm", "wise", "witty",
];

const NOUNS: [&str; 64] = [
    "alder", "anchor", "anvil", "aspen", "badger", "beacon", "beech", "birch", "bridge", "brook",
    "cedar", "comet", "crane", "creek", "dune", "eagle", "elm", "falcon", "fern", "finch", "fjord",
    "forge", "fox", "girder", "glade", "harbor", "hare", "hazel", "heron", "ibis", "island", "ivy",
    "kestrel", "lantern", "larch", "lark", "linden", "lynx", "maple", "marten", "meadow", "moss",
    "oak", "orbit", "otter", "owl", "pebble", "pine", "plover", "quarry", "raven", "reef", "ridge",
    "robin", "rowan", "salmon", "sparrow", "spruce", "swan", "thistle", "tower", "walnut",
    "willow", "wren",
];

/// A name, another one each time: `steady-otter`. Whether it is free the
/// daemon knows.
pub fn invent() -> String {
    // Seeded by the system for every hasher.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let pick = |list: &[&'static str; 64], bits: u64| list[(bits & 63) as usize];
    format!("{}-{}", pick(&ADJECTIVES, random), pick(&NOUNS, random >> 32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_differ() {
        let names: BTreeSet<_> = (0..200).map(|_| invent()).collect();
        assert!(names.len() > 150, "{}", names.len());
        assert!(names.iter().all(|name| name.matches('-').count() == 1));
    }

    #[test]
    fn no_word_is_there_twice() {
        let words: BTreeSet<_> = ADJECTIVES.iter().chain(&NOUNS).collect();
        assert_eq!(words.len(), ADJECTIVES.len() + NOUNS.len());
    }
}
