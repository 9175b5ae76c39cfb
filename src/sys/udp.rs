//! UDP sockets: destination address, segmentation offload, batches.
