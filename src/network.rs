//! Tap and redirect: how a guest reaches our TFTP server.
