//! The manifest format and the manifests of the build bot.
