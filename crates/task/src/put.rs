//! Writing protobuf: a message says its fields, first to be measured, then to be written into one allocation of exactly
//! that size. No wire structs on this way, and so no copy of an id, a name or a body but the one into the buffer.
//!
//! Field numbers are those of the wire structs, which read them; a test has those write again what they have read, to the
//! same bytes.

use bytes::Bytes;

/// A message that can be written.
pub trait Put {
    /// Its fields, in order of their numbers.
    fn put(&self, to: &mut Writer);
}

/// The bytes of `message`.
pub fn encode(message: &impl Put) -> Bytes {
    let mut writer = Writer { out: Vec::new(), measured: 0, is_measuring: true };
    message.put(&mut writer);
    let len = writer.measured;
    writer = Writer { out: Vec::with_capacity(len), measured: 0, is_measuring: false };
    message.put(&mut writer);
    assert_eq!(writer.out.len(), len, "a message says the same fields each time");
    writer.out.into()
}

/// Appends the bytes of `message` to a buffer that grows as it needs.
pub fn append(message: &impl Put, buffer: &mut Vec<u8>) {
    let mut writer = Writer { out: std::mem::take(buffer), measured: 0, is_measuring: false };
    message.put(&mut writer);
    *buffer = writer.out;
}

/// What fields are written to. Zeros and empty values are left out, as protobuf wants it, unless a method says otherwise.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    measured: usize,
    is_measuring: bool,
}

impl Writer {
    /// A number.
    pub fn uint(&mut self, field: u32, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.number(field, value);
        }
    }

    /// A number that is there even when it is zero.
    pub fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    /// A number of either sign; there if it is.
    pub fn sint(&mut self, field: u32, value: Option<i32>) {
        if let Some(value) = value {
            // Zigzag: small magnitudes of either sign are short.
            self.number(field, u64::from(((value << 1) ^ (value >> 31)) as u32));
        }
    }

    /// Bytes or text.
    pub fn bytes(&mut self, field: u32, bytes: impl AsRef<[u8]>) {
        if !bytes.as_ref().is_empty() {
            self.given(field, bytes);
        }
    }

    /// Bytes that are there even when there are none: alternatives and elements of lists.
    pub fn given(&mut self, field: u32, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.head(field, bytes.len());
        self.raw(bytes);
    }

    /// A message within the message.
    pub fn message(&mut self, field: u32, message: &impl Put) {
        self.nested(field, |to| message.put(to));
    }

    /// A list of messages.
    pub fn each(&mut self, field: u32, messages: &[impl Put]) {
        messages.iter().for_each(|message| self.message(field, message));
    }

    /// An alternative without data.
    pub fn unit(&mut self, field: u32) {
        self.head(field, 0);
    }

    /// A message within the message, given by its fields.
    pub fn nested(&mut self, field: u32, fields: impl Fn(&mut Writer)) {
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
        if self.is_measuring {
            self.measured += (64 - (value | 1).leading_zeros() as usize).div_ceil(7);
            return;
        }
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn raw(&mut self, bytes: &[u8]) {
        if self.is_measuring {
            self.measured += bytes.len();
        } else {
            self.out.extend_from_slice(bytes);
        }
    }
}
