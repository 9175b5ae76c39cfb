//! Files and directories beyond what std offers.
