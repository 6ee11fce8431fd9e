"""Names of Gluon that changed between the Triton releases this package works with (3.6 to 3.7)."""

from triton.experimental.gluon import language as gl

# All threads of the caller's partition wait for one another; `thread_barrier` up to 3.6.
barrier = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier
