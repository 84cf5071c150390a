//! Netlink messages: built attribute by attribute, parsed without copying.

/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER_BYTES: usize = 16;
/// Bytes of `struct nlattr`.
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Marks an attribute that holds attributes.
const NLA_F_NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are flags (nested, byte order).
const NLA_FLAGS: u16 = 0xc000;

/// `NLM_F_REQUEST`: every message from us.
pub const NLM_F_REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: answer even where there is no error.
pub const NLM_F_ACK: u16 = 0x4;

/// One request to the kernel, with the words for its error.
///
/// The words are kept with the message because one datagram can carry many:
/// when the third fails, the error must tell which it was.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
    pub(super) verb: &'static str,
    pub(super) object: String,
}

impl Message {
    /// Begins a message of type `kind` (`RTM_…`, or subsystem and command) with
    /// the family's own fixed header; `flags` beside `NLM_F_REQUEST`.
    pub fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(header);
        let mut message = Self { bytes, verb: "ask", object: "the kernel".to_owned() };
        message.pad();
        message
    }

    /// Says what this message does to what: the words of its error.
    pub fn does(mut self, verb: &'static str, object: impl Into<String>) -> Self {
        self.verb = verb;
        self.object = object.into();
        self
    }

    /// Adds an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = (ATTRIBUTE_HEADER_BYTES + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Adds a string with its terminating NUL.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds one byte.
    pub fn byte(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attribute(kind, &[value])
    }

    /// Adds a number in the machine's byte order, as rtnetlink has them.
    pub fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network byte order, as nf_tables has them.
    pub fn big_endian(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds an attribute made of what `fill` adds.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.attribute(kind | NLA_F_NESTED, &[]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Adds bytes that are no attribute: the fixed header that some nested
    /// attributes begin with.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// The finished bytes, with length, sequence number and more flags set.
    pub(super) fn finish(&mut self, sequence: u32, flags: u16) -> &[u8] {
        let length = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        let old = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        self.bytes[6..8].copy_from_slice(&(old | flags).to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
    }
}

/// The attributes in some bytes, one after the other. Ends at the first one
/// that does not fit.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of this type.
    pub fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The attributes inside the first attribute of this type.
    pub fn inside(self, kind: u16) -> Option<Attributes<'a>> {
        self.get(kind).map(Attributes)
    }

    /// A string, without its NUL.
    pub fn text(self, kind: u16) -> Option<String> {
        let value = self.get(kind)?;
        let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
        Some(String::from_utf8_lossy(&value[..end]).into_owned())
    }

    /// A number in the machine's byte order.
    pub fn number(self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_ne_bytes)
    }

    /// A number in network byte order.
    pub fn big_endian(self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_be_bytes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?);
        let value = self.0.get(ATTRIBUTE_HEADER_BYTES..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind & !NLA_FLAGS, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_can_be_parsed() {
        let mut message = Message::new(16, 0, &[1, 2, 3]);
        message.text(3, "eth0").nested(18, |inner| {
            inner.text(1, "veth").byte(2, 9);
        });
        message.big_endian(4, 7);
        let bytes = message.finish(5, NLM_F_ACK).to_vec();
        assert_eq!(bytes.len() as u32, u32::from_ne_bytes(bytes[0..4].try_into().unwrap()));
        let attributes = Attributes(&bytes[HEADER_BYTES + 4..]);
        assert_eq!(attributes.text(3).as_deref(), Some("eth0"));
        let inner = attributes.inside(18).unwrap();
        assert_eq!(inner.text(1).as_deref(), Some("veth"));
        assert_eq!(inner.get(2), Some(&[9u8][..]));
        assert_eq!(attributes.big_endian(4), Some(7));
        assert_eq!(attributes.number(99), None);
    }

    #[test]
    fn broken_attributes_end_the_list() {
        for bytes in [&[][..], &[1][..], &[3, 0, 1, 0][..], &[200, 0, 1, 0, 5][..]] {
            assert_eq!(Attributes(bytes).count(), 0);
        }
    }
}
