//! placeholder
use anyhow::Result;
/// x
pub fn main(_: &[String]) -> Result<()> {
    Ok(())
}
