//! Discovery by EndpointSlices, over sockets.
