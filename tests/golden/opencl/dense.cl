__kernel void nest_dense_0(__global float *restrict x, __global float *restrict w, __global float *restrict b, __global float *restrict out) {
  const long end = min((long)4, ((long)get_global_id(0) + 1) * 1);
  for (long point = get_global_id(0) * 1L; point < end; ++point) {
    const int j_o = point % 2;
    const int i_o = point / 2;
    float8 out_sum[8];
    __attribute__((opencl_unroll_hint(4)))
    for (int i_i = 0; i_i < 4; ++i_i) {
      __attribute__((opencl_unroll_hint(2)))
      for (int j_u = 0; j_u < 2; ++j_u) {
        out_sum[2 * i_i + j_u] = (float8)(0x0.0p+0f);
      }
    }
    for (int k = 0; k < 24; ++k) {
      __attribute__((opencl_unroll_hint(4)))
      for (int i_i = 0; i_i < 4; ++i_i) {
        __attribute__((opencl_unroll_hint(2)))
        for (int j_u = 0; j_u < 2; ++j_u) {
          out_sum[2 * i_i + j_u] = fma((float8)(x[24 * i_i + 96 * i_o + k]), vload8(0, w + 16 * j_o + 8 * j_u + 32 * k), out_sum[2 * i_i + j_u]);
        }
      }
    }
    __attribute__((opencl_unroll_hint(4)))
    for (int i_i = 0; i_i < 4; ++i_i) {
      __attribute__((opencl_unroll_hint(2)))
      for (int j_u = 0; j_u < 2; ++j_u) {
        vstore8(t_max(out_sum[2 * i_i + j_u] + vload8(0, b + 16 * j_o + 8 * j_u), (float8)(0x0.0p+0f)), 0, out + 32 * i_i + 128 * i_o + 16 * j_o + 8 * j_u);
      }
    }
  }
}
