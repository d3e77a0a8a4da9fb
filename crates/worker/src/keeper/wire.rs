//! What the worker and its keeper say to each other over their socket and pipe.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

/// Bytes of a request's header.
pub(super) const HEADER: usize = 16;
/// Bytes of a reply.
pub(super) const REPLY: usize = 16;
/// Largest payload of a request: two bodies and the template around them; the kernel allows arguments no more.
pub(super) const PAYLOAD_MAX: usize = 8 << 20;
/// Pipes that ride on a request at most: standard input, output and error.
pub(super) const PIPES_MAX: usize = 3;

const KIND_SPAWN: u8 = 1;
const KIND_KILL: u8 = 2;
const FLAG_STDIN: u8 = 1;

const END_EXITED: u8 = 1;
const END_SIGNALED: u8 = 2;
const END_FAILED: u8 = 3;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
    /// It was never started: the system's error number.
    Failed(i32),
}

/// The header of a request, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Spawn { id: u64, stdin: bool, len: usize },
    Kill { id: u64 },
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER] {
        let (kind, flags, id, len) = match self {
            Header::Spawn { id, stdin, len } => (KIND_SPAWN, if stdin { FLAG_STDIN } else { 0 }, id, len as u32),
            Header::Kill { id } => (KIND_KILL, 0, id, 0),
        };
        let mut out = [0; HEADER];
        out[..4].copy_from_slice(&len.to_le_bytes());
        out[4] = kind;
        out[5] = flags;
        out[8..].copy_from_slice(&id.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; HEADER]) -> io::Result<Self> {
        let len = u32_at(bytes, 0) as usize;
        let id = u64_at(bytes, 8);
        match bytes[4] {
            KIND_SPAWN if len <= PAYLOAD_MAX => Ok(Header::Spawn { id, stdin: bytes[5] & FLAG_STDIN != 0, len }),
            KIND_KILL if len == 0 => Ok(Header::Kill { id }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// A spawn request. Its payload: `memory u64 | (len u32 | bytes)*`; memory 0 is no limit.
pub(super) fn encode_spawn(id: u64, stdin: bool, memory: u64, argv: &[OsString]) -> Vec<u8> {
    let len = 8 + argv.iter().map(|arg| 4 + arg.len()).sum::<usize>();
    let mut out = Vec::with_capacity(HEADER + len);
    out.extend_from_slice(&Header::Spawn { id, stdin, len }.encode());
    out.extend_from_slice(&memory.to_le_bytes());
    for arg in argv {
        out.extend_from_slice(&(arg.len() as u32).to_le_bytes());
        out.extend_from_slice(arg.as_bytes());
    }
    out
}

/// Reads a spawn payload: the memory limit and the arguments.
pub(super) fn decode_spawn(payload: &[u8]) -> io::Result<(u64, Vec<OsString>)> {
    let mut rest = payload;
    let mut memory = [0; 8];
    rest.read_exact(&mut memory)?;
    let mut argv = Vec::new();
    while !rest.is_empty() {
        let mut len = [0; 4];
        rest.read_exact(&mut len)?;
        let len = u32::from_le_bytes(len) as usize;
        let Some((arg, after)) = rest.split_at_checked(len) else { return Err(io::ErrorKind::InvalidData.into()) };
        argv.push(OsStr::from_bytes(arg).to_owned());
        rest = after;
    }
    Ok((u64::from_le_bytes(memory), argv))
}

/// A reply: the program of request `id` has ended.
pub(super) fn encode_reply(id: u64, end: End) -> [u8; REPLY] {
    let (kind, value) = match end {
        End::Exited(code) => (END_EXITED, code),
        End::Signaled(signal) => (END_SIGNALED, signal),
        End::Failed(errno) => (END_FAILED, errno),
    };
    let mut out = [0; REPLY];
    out[..8].copy_from_slice(&id.to_le_bytes());
    out[8..12].copy_from_slice(&value.to_le_bytes());
    out[12] = kind;
    out
}

pub(super) fn decode_reply(bytes: &[u8; REPLY]) -> io::Result<(u64, End)> {
    let value = u32_at(bytes, 8) as i32;
    let end = match bytes[12] {
        END_EXITED => End::Exited(value),
        END_SIGNALED => End::Signaled(value),
        END_FAILED => End::Failed(value),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    Ok((u64_at(bytes, 0), end))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_heard() {
        for header in [Header::Spawn { id: 7, stdin: true, len: 9 }, Header::Kill { id: u64::MAX }] {
            assert_eq!(Header::decode(&header.encode()).unwrap(), header);
        }
        for end in [End::Exited(3), End::Signaled(9), End::Failed(2)] {
            assert_eq!(decode_reply(&encode_reply(5, end)).unwrap(), (5, end));
        }
        let argv = vec![OsString::from("sh"), OsStr::from_bytes(b"\xffa").to_owned(), OsString::new()];
        let request = encode_spawn(3, true, 1 << 40, &argv);
        let (header, payload) = request.split_first_chunk().unwrap();
        assert_eq!(Header::decode(header).unwrap(), Header::Spawn { id: 3, stdin: true, len: payload.len() });
        assert_eq!(decode_spawn(payload).unwrap(), (1 << 40, argv));
        assert!(decode_spawn(&[0; 9]).is_err());
        assert!(Header::decode(&[0xff; HEADER]).is_err());
    }
}
