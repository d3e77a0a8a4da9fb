//! Memory forms to wire forms and back.

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not protobuf, or not this message.
    #[error("malformed message: {0}")]
    Proto(#[from] prost::DecodeError),
}
