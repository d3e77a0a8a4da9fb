//! Writing protobuf: a message says its fields once, first to be measured, then to be written into one allocation of
//! exactly that size. No wire structs on this way, and so no copy of an id, a name or a body but the one into the buffer.
//!
//! Field numbers are those of `wire`, which reads them; a test has `wire` write again what it has read, to the same bytes.

use bytes::Bytes;

/// A message that can be written.
pub(super) trait Put {
    /// Its fields, in order of their numbers.
    fn put(&self, to: &mut Writer);
}

/// The bytes of `message`.
pub(super) fn encode(message: &impl Put) -> Bytes {
    let mut writer = Writer { out: Vec::new(), measured: 0, is_measuring: true };
    message.put(&mut writer);
    let len = writer.measured;
    writer = Writer { out: Vec::with_capacity(len), measured: 0, is_measuring: false };
    message.put(&mut writer);
    assert_eq!(writer.out.len(), len, "a message says the same fields each time");
    writer.out.into()
}

/// What fields are written to. Zeros and empty values are left out, as protobuf wants it, unless a method says otherwise.
pub(super) struct Writer {
    out: Vec<u8>,
    measured: usize,
    is_measuring: bool,
}

impl Writer {
    /// A number.
    pub(super) fn uint(&mut self, field: u32, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.number(field, value);
        }
    }

    /// A number that is there even when it is zero.
    pub(super) fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    /// A number of either sign; there if it is.
    pub(super) fn sint(&mut self, field: u32, value: Option<i32>) {
        if let Some(value) = value {
            // Zigzag: small magnitudes of either sign are short.
            self.number(field, u64::from(((value << 1) ^ (value >> 31)) as u32));
        }
    }

    /// Bytes or text.
    pub(super) fn bytes(&mut self, field: u32, bytes: impl AsRef<[u8]>) {
        if !bytes.as_ref().is_empty() {
            self.given(field, bytes);
        }
    }

    /// Bytes that are there even when there are none: alternatives and elements of lists.
    pub(super) fn given(&mut self, field: u32, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.head(field, bytes.len());
        self.raw(bytes);
    }

    /// A message within the message.
    pub(super) fn message(&mut self, field: u32, message: &impl Put) {
        self.nested(field, |to| message.put(to));
    }

    /// A list of messages.
    pub(super) fn each(&mut self, field: u32, messages: &[impl Put]) {
        messages.iter().for_each(|message| self.message(field, message));
    }

    /// An alternative without data.
    pub(super) fn unit(&mut self, field: u32) {
        self.head(field, 0);
    }

    /// A message within the message, given by its fields.
    pub(super) fn nested(&mut self, field: u32, fields: impl Fn(&mut Writer)) {
        let (before, was_measuring) = (self.measured, self.is_measuring);
        (self.measured, self.is_measuring) = (0, true);
        fields(self);
        let len = self.measured;
        (self.measured, self.is_measuring) = (before, was_measuring);
        self.head(field, len);
        if self.is_measuring {
            self.measured += len;
        } else {
            fields(self);
        }
    }

    fn head(&mut self, field: u32, len: usize) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(len as u64);
    }

    /// Seven bits a byte, the lowest first; the high bit says that more follow.
    fn varint(&mut self, mut value: u64) {
        let (mut bytes, mut len) = ([0; 10], 0);
        while value >= 0x80 {
            bytes[len] = value as u8 | 0x80;
            value >>= 7;
            len += 1;
        }
        bytes[len] = value as u8;
        self.raw(&bytes[..=len]);
    }

    fn raw(&mut self, bytes: &[u8]) {
        if self.is_measuring {
            self.measured += bytes.len();
        } else {
            self.out.extend_from_slice(bytes);
        }
    }
}
