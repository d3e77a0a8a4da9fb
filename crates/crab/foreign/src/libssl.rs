//! The system's libssl 3, loaded when the first certificate is, and the little of it that a server needs.
//!
//! Invariants: the library is never unloaded; the socket of a session outlives it; a session is used by one thread at a time,
//! which `&mut` sees to. Sockets do not block: whoever calls waits where it is told to.

use std::ffi::{CString, c_char, c_int, c_long, c_void};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

#[cfg(all(test, feature = "headers"))]
use openssl_sys::{OPENSSL_INIT_SETTINGS, SSL, SSL_CTX, SSL_METHOD};

/// Certificate chain, key and settings.
pub struct Context {
    table: &'static Table,
    raw: NonNull<SSL_CTX>,
}

/// TLS on a socket.
pub struct Session {
    table: &'static Table,
    raw: NonNull<SSL>,
    _socket: Arc<TcpStream>,
}

/// Why there is no context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is no libssl 3.
    NoLibrary,
    /// It refuses what every server needs.
    NoStart,
    /// The chain is missing, or is no PEM.
    Chain,
    /// The key is missing, encrypted, no PEM, or not that of the certificate.
    Key,
}

/// Why there are no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Again when the socket is readable.
    Reads,
    /// Again when it is writable.
    Writes,
    /// The peer said goodbye.
    Ended,
    /// It is over.
    Broken,
}

// SAFETY: libssl counts the references to a context atomically; after `load` nobody changes it.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}
// SAFETY: a session is bound to no thread.
unsafe impl Send for Session {}

impl Context {
    /// Loads the library, chain and key. To be called once: what it loads is never unloaded.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, Fault> {
        let table: &'static Table = Box::leak(Box::new(Table::load().ok_or(Fault::NoLibrary)?));
        let context = Self::new(table).ok_or(Fault::NoStart)?;
        let raw = context.raw.as_ptr();
        let file = c_path(chain).ok_or(Fault::Chain)?;
        // SAFETY: the context lives, and the name ends with NUL.
        if unsafe { (table.SSL_CTX_use_certificate_chain_file)(raw, file.as_ptr()) } != 1 {
            return Err(Fault::Chain);
        }
        let file = c_path(key).ok_or(Fault::Key)?;
        // SAFETY: as above.
        let read = unsafe { (table.SSL_CTX_use_PrivateKey_file)(raw, file.as_ptr(), FILETYPE_PEM) } == 1;
        // SAFETY: the context lives.
        if !read || unsafe { (table.SSL_CTX_check_private_key)(raw) } != 1 {
            return Err(Fault::Key);
        }
        Ok(context)
    }

    fn new(table: &'static Table) -> Option<Self> {
        // At the exit other threads may still be in the library, so it is not torn down.
        // SAFETY: no settings are a null pointer.
        if unsafe { (table.OPENSSL_init_ssl)(INIT_NO_ATEXIT, ptr::null()) } != 1 {
            return None;
        }
        // SAFETY: it has no argument.
        let method = unsafe { (table.TLS_server_method)() };
        // SAFETY: the method is static.
        let raw = NonNull::new(unsafe { (table.SSL_CTX_new)(method) })?;
        let context = Self { table, raw };
        let control = |command, value| {
            // SAFETY: the context lives, and these commands take a number.
            unsafe { (table.SSL_CTX_ctrl)(raw.as_ptr(), command, value, ptr::null_mut()) }
        };
        let is_set = control(CTRL_SET_MIN_PROTO_VERSION, TLS1_2) == 1;
        control(CTRL_SET_SESS_CACHE_MODE, SESS_CACHE_OFF);
        control(CTRL_MODE, MODE);
        // Without it every call comes back after a record that has no data, so that the caller's deadline is looked at.
        control(CTRL_CLEAR_MODE, MODE_AUTO_RETRY);
        // SAFETY: the context lives.
        unsafe { (table.SSL_CTX_set_options)(raw.as_ptr(), OPTIONS) };
        // The password of an encrypted key is empty, and nobody is asked for it.
        let password = c"".as_ptr().cast_mut().cast();
        // SAFETY: the context lives, and the text is static and only read.
        unsafe { (table.SSL_CTX_set_default_passwd_cb_userdata)(raw.as_ptr(), password) };
        // SAFETY: the context lives, and the text is static.
        let has_ciphers = unsafe { (table.SSL_CTX_set_cipher_list)(raw.as_ptr(), CIPHERS_OF_1_2.as_ptr()) } == 1;
        (is_set && has_ciphers).then_some(context)
    }

    /// TLS on a socket that does not block. `None`: memory is short.
    pub fn session(&self, socket: Arc<TcpStream>) -> Option<Session> {
        // SAFETY: the context lives.
        let raw = NonNull::new(unsafe { (self.table.SSL_new)(self.raw.as_ptr()) })?;
        let session = Session { table: self.table, raw, _socket: socket };
        // SAFETY: the session lives, and keeps the socket open; libssl does not close it.
        let is_set = unsafe { (self.table.SSL_set_fd)(raw.as_ptr(), session._socket.as_raw_fd()) } == 1;
        is_set.then_some(session)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it is ours, and sessions have references of their own.
        unsafe { (self.table.SSL_CTX_free)(self.raw.as_ptr()) };
    }
}

impl Session {
    /// Goes on with the handshake.
    ///
    /// # Errors
    /// What to wait for, or that it is over.
    pub fn accept(&mut self) -> Result<(), Stop> {
        self.call(|table, raw| {
            // SAFETY: the session lives.
            unsafe { (table.SSL_accept)(raw) }
        })
        .map(|_| ())
    }

    /// Reads at least a byte, if `bytes` is not empty.
    ///
    /// # Errors
    /// What to wait for, or that it is over.
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Stop> {
        let length = c_length(bytes);
        self.call(|table, raw| {
            // SAFETY: the session lives, and so many bytes are there.
            unsafe { (table.SSL_read)(raw, bytes.as_mut_ptr().cast(), length) }
        })
    }

    /// Writes at least a byte; `bytes` is not empty. After `Stop::Writes` or `Stop::Reads` the same bytes are due again.
    ///
    /// # Errors
    /// What to wait for, or that it is over.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Stop> {
        let length = c_length(bytes);
        self.call(|table, raw| {
            // SAFETY: the session lives, and so many bytes are there.
            unsafe { (table.SSL_write)(raw, bytes.as_ptr().cast(), length) }
        })
    }

    /// Tells the peer that nothing was cut off, if the socket takes it at once. Only where nothing failed before.
    pub fn say_goodbye(&mut self) {
        // SAFETY: the session lives.
        unsafe { (self.table.SSL_shutdown)(self.raw.as_ptr()) };
    }

    /// Makes a call, and reads its result as libssl wants it read: with an empty queue of errors, and in the same thread.
    fn call(&mut self, work: impl FnOnce(&Table, *mut SSL) -> c_int) -> Result<usize, Stop> {
        // SAFETY: it has no argument, and touches what belongs to this thread.
        unsafe { (self.table.ERR_clear_error)() };
        let result = work(self.table, self.raw.as_ptr());
        if let Ok(count @ 1..) = usize::try_from(result) {
            return Ok(count);
        }
        // SAFETY: the session lives, and the result is that of its last call.
        match unsafe { (self.table.SSL_get_error)(self.raw.as_ptr(), result) } {
            ERROR_WANT_READ => Err(Stop::Reads),
            ERROR_WANT_WRITE => Err(Stop::Writes),
            ERROR_ZERO_RETURN => Err(Stop::Ended),
            _ => Err(Stop::Broken),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nobody else has a pointer to it.
        unsafe { (self.table.SSL_free)(self.raw.as_ptr()) };
    }
}

fn c_path(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

fn c_length(bytes: &[u8]) -> c_int {
    c_int::try_from(bytes.len()).unwrap_or(c_int::MAX)
}

/// Of TLS 1.2 only what has forward secrecy and authenticates what it encrypts; of TLS 1.3 everything, as there is nothing else.
const CIPHERS_OF_1_2: &std::ffi::CStr = c"ECDHE+AESGCM:ECDHE+CHACHA20";

// Numbers of ssl.h; a test holds them against openssl-sys.
const FILETYPE_PEM: c_int = 1;
const INIT_NO_ATEXIT: u64 = 1 << 19;
const CTRL_MODE: c_int = 33;
const CTRL_SET_SESS_CACHE_MODE: c_int = 44;
const CTRL_CLEAR_MODE: c_int = 78;
const CTRL_SET_MIN_PROTO_VERSION: c_int = 123;
const TLS1_2: c_long = 0x303;
const SESS_CACHE_OFF: c_long = 0;
const MODE_PARTIAL_WRITE: c_long = 1;
const MODE_AUTO_RETRY: c_long = 4;
/// A connection that waits in the queue holds no buffers.
const MODE_RELEASE_BUFFERS: c_long = 0x10;
const MODE: c_long = MODE_PARTIAL_WRITE | MODE_RELEASE_BUFFERS;
const NO_COMPRESSION: u64 = 1 << 17;
const NO_RENEGOTIATION: u64 = 1 << 30;
const OPTIONS: u64 = NO_COMPRESSION | NO_RENEGOTIATION;
const ERROR_WANT_READ: c_int = 2;
const ERROR_WANT_WRITE: c_int = 3;
const ERROR_ZERO_RETURN: c_int = 6;

#[cfg(not(all(test, feature = "headers")))]
mod opaque {
    //! What only libssl looks into.
    #![expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "as they are called there")]
    pub(super) enum OPENSSL_INIT_SETTINGS {}
    pub(super) enum SSL {}
    pub(super) enum SSL_CTX {}
    pub(super) enum SSL_METHOD {}
}
#[cfg(not(all(test, feature = "headers")))]
use opaque::{OPENSSL_INIT_SETTINGS, SSL, SSL_CTX, SSL_METHOD};

/// Declares the functions by their names, finds them in the library, and has a test hold their types against openssl-sys.
macro_rules! table {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        #[expect(non_snake_case, reason = "as they are called there")]
        struct Table {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Table {
            /// `None`: there is no such library, or it lacks a function.
            fn load() -> Option<Self> {
                // SAFETY: the name ends with NUL. What the library does while it is loaded is as it would be if it were linked.
                let library = NonNull::new(unsafe { dlopen(c"libssl.so.3".as_ptr(), RTLD_NOW) })?;
                Some(Self {
                    $($name: {
                        let name = concat!(stringify!($name), "\0");
                        // SAFETY: the library is loaded, and the name ends with NUL.
                        let found = NonNull::new(unsafe { dlsym(library.as_ptr(), name.as_ptr().cast()) })?;
                        // SAFETY: libssl 3 has a function of this name and type; a test holds the type against openssl-sys.
                        unsafe { std::mem::transmute::<NonNull<c_void>, unsafe extern "C" fn($($argument),*) $(-> $result)?>(found) }
                    },)*
                })
            }

            #[cfg(all(test, feature = "headers"))]
            fn of_openssl_sys() -> Self {
                Self { $($name: theirs::$name,)* }
            }
        }
    };
}

table! {
    OPENSSL_init_ssl(u64, *const OPENSSL_INIT_SETTINGS) -> c_int;
    ERR_clear_error();
    TLS_server_method() -> *const SSL_METHOD;
    SSL_CTX_new(*const SSL_METHOD) -> *mut SSL_CTX;
    SSL_CTX_free(*mut SSL_CTX);
    SSL_CTX_ctrl(*mut SSL_CTX, c_int, c_long, *mut c_void) -> c_long;
    SSL_CTX_set_options(*mut SSL_CTX, u64) -> u64;
    SSL_CTX_set_cipher_list(*mut SSL_CTX, *const c_char) -> c_int;
    SSL_CTX_set_default_passwd_cb_userdata(*mut SSL_CTX, *mut c_void);
    SSL_CTX_use_certificate_chain_file(*mut SSL_CTX, *const c_char) -> c_int;
    SSL_CTX_use_PrivateKey_file(*mut SSL_CTX, *const c_char, c_int) -> c_int;
    SSL_CTX_check_private_key(*const SSL_CTX) -> c_int;
    SSL_new(*mut SSL_CTX) -> *mut SSL;
    SSL_free(*mut SSL);
    SSL_set_fd(*mut SSL, c_int) -> c_int;
    SSL_accept(*mut SSL) -> c_int;
    SSL_read(*mut SSL, *mut c_void, c_int) -> c_int;
    SSL_write(*mut SSL, *const c_void, c_int) -> c_int;
    SSL_shutdown(*mut SSL) -> c_int;
    SSL_get_error(*const SSL, c_int) -> c_int;
}

#[cfg(all(test, feature = "headers"))]
mod theirs {
    pub(super) use openssl_sys::*;
    // Two that it lacks, from the manual.
    unsafe extern "C" {
        pub(super) fn SSL_set_fd(ssl: *mut SSL, fd: super::c_int) -> super::c_int;
        pub(super) fn SSL_CTX_set_default_passwd_cb_userdata(ctx: *mut SSL_CTX, u: *mut super::c_void);
    }
}

const RTLD_NOW: c_int = 2;

// Declared as in dlfcn.h.
unsafe extern "C" {
    fn dlopen(name: *const c_char, mode: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

#[cfg(all(test, feature = "headers"))]
mod tests {
    use super::*;

    /// That it compiles is half of the test.
    #[test]
    fn declarations_and_numbers_are_those_of_openssl_sys() {
        let (ours, theirs) = (Table::load().unwrap(), Table::of_openssl_sys());
        assert!(std::ptr::fn_addr_eq(ours.SSL_read, theirs.SSL_read), "another library than the one that is linked");
        assert_eq!((FILETYPE_PEM, TLS1_2), (openssl_sys::SSL_FILETYPE_PEM, openssl_sys::TLS1_2_VERSION.into()));
        assert_eq!(
            (CTRL_MODE, CTRL_SET_SESS_CACHE_MODE),
            (openssl_sys::SSL_CTRL_MODE, openssl_sys::SSL_CTRL_SET_SESS_CACHE_MODE)
        );
        assert_eq!(CTRL_SET_MIN_PROTO_VERSION, openssl_sys::SSL_CTRL_SET_MIN_PROTO_VERSION);
        assert_eq!(MODE, openssl_sys::SSL_MODE_ENABLE_PARTIAL_WRITE | openssl_sys::SSL_MODE_RELEASE_BUFFERS);
        assert_eq!(
            (MODE_AUTO_RETRY, SESS_CACHE_OFF),
            (openssl_sys::SSL_MODE_AUTO_RETRY, openssl_sys::SSL_SESS_CACHE_OFF)
        );
        assert_eq!(OPTIONS, openssl_sys::SSL_OP_NO_COMPRESSION | openssl_sys::SSL_OP_NO_RENEGOTIATION);
        assert_eq!(INIT_NO_ATEXIT, openssl_sys::OPENSSL_INIT_NO_ATEXIT);
        assert_eq!(
            (ERROR_WANT_READ, ERROR_WANT_WRITE),
            (openssl_sys::SSL_ERROR_WANT_READ, openssl_sys::SSL_ERROR_WANT_WRITE)
        );
        assert_eq!(ERROR_ZERO_RETURN, openssl_sys::SSL_ERROR_ZERO_RETURN);
    }
}
