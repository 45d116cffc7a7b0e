__kernel void nest_softmax_0(__global float *restrict x, __global float *restrict out) {
  const long end = min((long)8, ((long)get_global_id(0) + 1) * 1);
  for (long point = get_global_id(0) * 1L; point < end; ++point) {
    const int i = point;
    float t0;
    float t1[40];
    float t2;
    float t0_sum;
    float t0_acc[40];
    __attribute__((opencl_unroll_hint(5)))
    for (int k_u = 0; k_u < 5; ++k_u) {
      vstore8((float8)((-INFINITY)), 0, t0_acc + 8 * k_u);
    }
    t0_sum = -INFINITY;
    __attribute__((opencl_unroll_hint(5)))
    for (int k_u = 0; k_u < 5; ++k_u) {
      vstore8(t_max(vload8(0, t0_acc + 8 * k_u), vload8(0, x + 40 * i + 8 * k_u)), 0, t0_acc + 8 * k_u);
    }
    vstore8(t_max(vload8(0, t0_acc + 0), vload8(0, t0_acc + 24)), 0, t0_acc + 0);
    vstore8(t_max(vload8(0, t0_acc + 8), vload8(0, t0_acc + 32)), 0, t0_acc + 8);
    vstore8(t_max(vload8(0, t0_acc + 0), vload8(0, t0_acc + 16)), 0, t0_acc + 0);
    vstore8(t_max(vload8(0, t0_acc + 0), vload8(0, t0_acc + 8)), 0, t0_acc + 0);
    for (int k_v = 0; k_v < 8; ++k_v) {
      t0_sum = t_max(t0_sum, t0_acc[k_v]);
    }
    t0 = t0_sum;
    for (int j_o = 0; j_o < 5; ++j_o) {
      vstore8(convert_float8(exp(convert_double8(vload8(0, x + 40 * i + 8 * j_o) - (float8)(t0)))), 0, t1 + 8 * j_o);
    }
    float t2_sum;
    float t2_acc[40];
    __attribute__((opencl_unroll_hint(5)))
    for (int k1_u = 0; k1_u < 5; ++k1_u) {
      vstore8((float8)(0x0.0p+0f), 0, t2_acc + 8 * k1_u);
    }
    t2_sum = 0x0.0p+0f;
    __attribute__((opencl_unroll_hint(5)))
    for (int k1_u = 0; k1_u < 5; ++k1_u) {
      vstore8(vload8(0, t2_acc + 8 * k1_u) + vload8(0, t1 + 8 * k1_u), 0, t2_acc + 8 * k1_u);
    }
    vstore8(vload8(0, t2_acc + 0) + vload8(0, t2_acc + 24), 0, t2_acc + 0);
    vstore8(vload8(0, t2_acc + 8) + vload8(0, t2_acc + 32), 0, t2_acc + 8);
    vstore8(vload8(0, t2_acc + 0) + vload8(0, t2_acc + 16), 0, t2_acc + 0);
    vstore8(vload8(0, t2_acc + 0) + vload8(0, t2_acc + 8), 0, t2_acc + 0);
    for (int k1_v = 0; k1_v < 8; ++k1_v) {
      t2_sum = t2_sum + t2_acc[k1_v];
    }
    t2 = t2_sum;
    for (int j1_o = 0; j1_o < 2; ++j1_o) {
      __attribute__((opencl_unroll_hint(2)))
      for (int j1_u = 0; j1_u < 2; ++j1_u) {
        vstore8(vload8(0, t1 + 16 * j1_o + 8 * j1_u) / (float8)(t2), 0, out + 40 * i + 16 * j1_o + 8 * j1_u);
      }
    }
    vstore8(vload8(0, t1 + 32) / (float8)(t2), 0, out + 40 * i + 32);
  }
}
