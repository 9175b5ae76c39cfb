//! The outermost transport, which corrects what ureq takes for an answer.

use std::io;
use std::time::Instant;

use ureq::unversioned::transport::time::Duration as Span;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use super::failure::{FailureClass, WireError};
use super::header::{self, Header};

/// Puts a [`StrictTransport`] around the transports before it.
#[derive(Debug)]
pub(super) struct Strict;

/// The outermost transport.
///
/// - An answer without a length ends when the connection does. ureq takes any
///   end for that one, also one without TLS's close_notify, which anybody on
///   the way can forge: here it is an error.
/// - A header that does not fit the buffer would read as a closed connection.
/// - Headers are made plain: see [`header`].
#[derive(Debug)]
pub(super) struct StrictTransport<T> {
    inner: T,
    /// Whether the header of the answer has been read.
    has_header: bool,
}

impl<In: Transport> Connector<In> for Strict {
    type Out = StrictTransport<In>;

    fn connect(
        &self,
        _details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(|inner| StrictTransport {
            inner,
            has_header: false,
        }))
    }
}

impl<T: Transport> StrictTransport<T> {
    fn await_more(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        if self.inner.buffers().input_append_buf().is_empty() {
            let filled = self.inner.buffers().input().len();
            return Err(ureq::Error::LargeResponseHeader(filled, filled));
        }
        match self.inner.await_input(timeout) {
            Err(ureq::Error::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(WireError::ureq(
                    FailureClass::Cut,
                    "connection closed before the end of the answer (no TLS close_notify)",
                ))
            }
            result => result,
        }
    }

    /// Replaces the header at the start of the input by a plain one. Returns false if it
    /// is not there yet.
    fn take_header(&mut self) -> bool {
        let buffers = self.inner.buffers();
        loop {
            match header::examine(buffers.input()) {
                Header::Incomplete => return false,
                Header::Interim(length) => buffers.input_consume(length),
                Header::Final(length, mut text) => {
                    text.extend_from_slice(&buffers.input()[length..]);
                    buffers.input_consume(buffers.input().len());
                    // It is not longer than what was there.
                    let space = buffers.input_append_buf().iter_mut();
                    let copied = space.zip(&text).map(|(to, from)| *to = *from).count();
                    buffers.input_appended(copied);
                    return true;
                }
            }
        }
    }
}

impl<T: Transport> Transport for StrictTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let start = Instant::now();
        loop {
            let mut left = timeout;
            if let Span::Exact(length) = timeout.after {
                left.after = Span::Exact(length.saturating_sub(start.elapsed()));
            }
            let is_open = self.await_more(left)?;
            self.has_header = self.has_header || self.take_header();
            if self.has_header || !is_open {
                return Ok(is_open);
            }
        }
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
