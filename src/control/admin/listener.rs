//! The admin socket: TCP, or a Unix socket that only our own user may connect to.

use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::bootstrap::AdminBind;

use super::host::Own;

/// Pause after an accept that failed, so that a lack of descriptors does not turn into a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound admin socket. The file of a Unix socket goes with it.
#[derive(Debug)]
pub(in crate::control) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix { listener: UnixListener, _file: SocketFile },
}

/// An accepted connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Binds the socket.
    ///
    /// # Errors
    /// What the operator should know.
    pub(in crate::control) async fn bind(bind: &AdminBind) -> Result<Self, String> {
        match bind {
            AdminBind::Tcp(address) => match TcpListener::bind(address).await {
                Ok(listener) => {
                    let address = listener.local_addr().unwrap_or(*address);
                    Ok(Self::Tcp(listener, address))
                }
                Err(error) => Err(format!("cannot bind admin to {address}: {error}")),
            },
            AdminBind::Unix(path) => bind_file(path)
                .map(|listener| Self::Unix { listener, _file: SocketFile(path.clone()) })
                .map_err(|error| format!("cannot bind admin to {}: {error}", path.display())),
        }
    }

    /// The next connection, and the hosts that its requests may name.
    pub(super) async fn accept(&self) -> (Stream, Own) {
        loop {
            match self.try_accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!("admin: cannot accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn try_accept(&self) -> io::Result<(Stream, Own)> {
        match self {
            Self::Tcp(listener, bind) => {
                let (stream, _) = listener.accept().await?;
                let local = stream.local_addr()?;
                Ok((Stream::Tcp(stream), Own::Tcp { bind: *bind, local }))
            }
            Self::Unix { listener, .. } => Ok((Stream::Unix(listener.accept().await?.0), Own::Unix)),
        }
    }
}

/// Binds a Unix socket in the place of one that nobody listens on any more.
fn bind_file(path: &Path) -> io::Result<UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket {
        match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            _ => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        }
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Removes the file at the end.
#[derive(Debug)]
pub(in crate::control) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that is gone already is no loss.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_file_that_nobody_listens_on_is_replaced_and_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::bind(&AdminBind::Unix(path.clone())).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = Listener::bind(&AdminBind::Unix(path.clone())).await.unwrap_err();
        assert!(error.contains("another process listens there"), "{error}");
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        fs::write(&path, "x").unwrap();
        assert!(Listener::bind(&AdminBind::Unix(path.clone())).await.is_err());
        assert_eq!(fs::read_to_string(path).unwrap(), "x");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error_that_names_it() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = Listener::bind(&AdminBind::Tcp(address)).await.unwrap_err();
        assert!(error.contains(&address.to_string()), "{error}");
    }
}
