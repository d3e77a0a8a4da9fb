//! Identities: sixteen bytes each, told apart by type. Shown as lower hex.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The id in `bytes`, or `None` unless there are exactly sixteen.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The first eight hex digits: enough for a person.
            pub fn short(&self) -> String {
                self.0[..4].iter().map(|b| format!("{b:02x}")).collect()
            }

            /// Reads 32 hex digits.
            pub fn parse(text: &str) -> Option<Self> {
                let text = text.as_bytes();
                if text.len() != 32 {
                    return None;
                }
                let mut out = [0u8; 16];
                for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
                    let pair = std::str::from_utf8(pair).ok()?;
                    *byte = u8::from_str_radix(pair, 16).ok()?;
                }
                Some(Self(out))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }
    };
}

id!(
    /// Names a task by its content: see [`crate::KeyHasher`].
    Key
);
id!(
    /// Names a job; made by the client, stored beside its sink before anything is submitted.
    JobId
);
id!(
    /// A client's identity of one row together with its body: digest of (source id, body, ordinal among equals).
    /// Opaque to the router, which returns it with the row's result.
    RowId
);
id!(
    /// Names a worker for life: stored in its data directory.
    WorkerId
);
id!(
    /// Names a journal: made when its data directory is.
    RouterId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_the_rest() {
        let id = Key([7; 16]);
        assert_eq!(Key::parse(&id.to_string()), Some(id));
        assert_eq!(Key::parse("07"), None);
        assert_eq!(Key::parse(&"é".repeat(16)), None);
        assert_eq!(Key::parse(&"zz".repeat(16)), None);
    }
}
