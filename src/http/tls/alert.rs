//! Pods that refuse the client after the handshake looked complete.
//!
//! In TLS 1.3 the client has finished its handshake, and may send its request, before the pod has checked the client's
//! certificate (RFC 8446 §2). A pod that rejects it sends an alert in place of a response. Some alerts can only come
//! from a handshake: if a pod sends one of these, it has not finished its own handshake, and so has not read a byte of
//! the request.

use std::{
    io::{self, BufRead, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{AlertDescription, Error as RustlsError, ProtocolVersion};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use crate::http::error::NotAccepted;

/// A TLS connection whose errors tell whether the pod ever accepted it.
pub(in crate::http) struct Secured<T> {
    stream: TlsStream<T>,
    /// Whether the pod has sent anything over it.
    is_accepted: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Secured<T> {
    pub(super) fn new(stream: TlsStream<T>) -> Self {
        Self {
            stream,
            is_accepted: false,
        }
    }

    /// Explains a read error.
    fn read_failed(&mut self, error: io::Error) -> io::Error {
        let tls = self.stream.get_mut().1;
        // An answer may have arrived together with the alert.
        self.is_accepted |= tls.reader().fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        let is_first_answer = !self.is_accepted;
        let version = tls.protocol_version();
        match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(RustlsError::AlertReceived(alert))
                if is_first_answer
                    && version == Some(ProtocolVersion::TLSv1_3)
                    && is_of_handshake(*alert) =>
            {
                io::Error::new(error.kind(), NotAccepted(error.into()))
            }
            _ => error,
        }
    }

    /// Explains a write error. Writing fails once the pod has closed the connection; the reason may be there to read.
    fn write_failed(&mut self, error: io::Error, cx: &mut Context<'_>) -> io::Error {
        if self.is_accepted {
            return error;
        }
        match Pin::new(&mut self.stream).poll_fill_buf(cx) {
            Poll::Ready(Err(why)) => {
                let why = self.read_failed(why);
                let is_told = why.get_ref().is_some_and(|why| why.is::<NotAccepted>());
                if is_told { why } else { error }
            }
            _ => error,
        }
    }

    fn written<R>(
        &mut self,
        written: Poll<io::Result<R>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<R>> {
        written.map_err(|error| self.write_failed(error, cx))
    }
}

/// Whether a pod sends this alert only instead of finishing its handshake, and never later: the certificate or the
/// offer is wrong (RFC 8446 §6.2). Others, such as `internal_error`, may come at any time.
fn is_of_handshake(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::HandshakeFailure
            | Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::ProtocolVersion
            | Alert::InsufficientSecurity
            | Alert::MissingExtension
            | Alert::UnrecognisedName
            | Alert::BadCertificateStatusResponse
            | Alert::UnknownPSKIdentity
            | Alert::CertificateRequired
            | Alert::NoApplicationProtocol
    )
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        Poll::Ready(match read {
            Ok(()) => {
                self.is_accepted |= buf.filled().len() > before;
                Ok(())
            }
            Err(error) => Err(self.read_failed(error)),
        })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
