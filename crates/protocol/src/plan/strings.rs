//! Lists of C strings, as plans hold them.

use corten_kernel::launch::CStrList;

use super::PlanError;

/// An owned list of strings, each with its NUL, to be lent to steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CStrings {
    count: u32,
    bytes: Vec<u8>,
}

impl CStrings {
    /// A list of these texts, none of which may have a NUL within.
    pub fn new<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Result<Self, PlanError> {
        let mut list = Self::default();
        for text in texts {
            list.push(text.as_ref())?;
        }
        Ok(list)
    }

    /// Adds one more text.
    pub fn push(&mut self, text: &[u8]) -> Result<(), PlanError> {
        if text.contains(&0) {
            return Err(PlanError::Nul);
        }
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
        self.count += 1;
        Ok(())
    }

    /// The list, borrowed as steps want it.
    pub fn as_list(&self) -> CStrList<'_> {
        CStrList { count: self.count, bytes: &self.bytes }
    }
}
