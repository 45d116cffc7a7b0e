source_filename = "golden"

@table = internal constant [2 x float] [float 1.0, float 2.0], align 64

declare double @cos(double)
declare void @free(ptr)
declare <4 x float> @llvm.copysign.v4f32(<4 x float>, <4 x float>)
declare <4 x float> @llvm.fabs.v4f32(<4 x float>)
declare <4 x float> @llvm.fma.v4f32(<4 x float>, <4 x float>, <4 x float>)
declare <8 x float> @llvm.masked.gather.v8f32.v8p0(<8 x ptr>, <8 x i1>, <8 x float>)
declare <8 x float> @llvm.masked.load.v8f32.p0(ptr, <8 x i1>, <8 x float>)
declare void @llvm.masked.store.v8f32.p0(<8 x float>, ptr, <8 x i1>)
declare <4 x float> @llvm.sqrt.v4f32(<4 x float>)
declare double @llvm.vector.reduce.fadd.v4f64(double, <4 x double>)

define <4 x float> @arithmetic(<4 x float> %x, <4 x i32> %n) #0 {
entry:
  %v = fadd <4 x float> %x, %x
  %v.1 = fsub <4 x float> %v, %x
  %v.2 = fmul <4 x float> %v.1, %x
  %v.3 = fdiv <4 x float> %v.2, %x
  %v.4 = frem <4 x float> %v.3, %x
  %v.5 = fneg <4 x float> %v.4
  %v.6 = fadd contract <4 x float> %v.4, %v.5
  %v.7 = add <4 x i32> %n, %n
  %v.8 = sub <4 x i32> %v.7, %n
  %v.9 = mul <4 x i32> %v.8, %n
  %v.10 = sdiv <4 x i32> %v.9, %n
  %v.11 = udiv <4 x i32> %v.10, %n
  %v.12 = srem <4 x i32> %v.11, %n
  %v.13 = urem <4 x i32> %v.12, %n
  %v.14 = and <4 x i32> %v.13, %n
  %v.15 = or <4 x i32> %v.14, %n
  %v.16 = xor <4 x i32> %v.15, %n
  %v.17 = shl <4 x i32> %v.16, %n
  %v.18 = ashr <4 x i32> %v.17, %n
  %v.19 = lshr <4 x i32> %v.18, %n
  %c = fcmp olt <4 x float> %v.6, splat (float 0x3FB99999A0000000)
  %v.20 = xor <4 x i32> %v.19, splat (i32 -1)
  %c.1 = icmp eq <4 x i32> %v.20, splat (i32 -1)
  %v.21 = xor <4 x i1> %c.1, splat (i1 true)
  %v.22 = and <4 x i1> %c, %v.21
  %v.23 = call <4 x float> @llvm.fma.v4f32(<4 x float> %v.6, <4 x float> %v.6, <4 x float> splat (float 0x4000000000000000))
  %v.24 = select <4 x i1> %v.22, <4 x float> %v.6, <4 x float> %v.23
  %v.25 = call <4 x float> @llvm.fabs.v4f32(<4 x float> %v.24)
  %v.26 = call <4 x float> @llvm.sqrt.v4f32(<4 x float> %v.25)
  %v.27 = bitcast <4 x i32> %v.19 to <4 x float>
  %v.28 = call <4 x float> @llvm.copysign.v4f32(<4 x float> %v.26, <4 x float> %v.27)
  ret <4 x float> %v.28
}

define i64 @conversions(<2 x double> %x, ptr %p) #0 {
entry:
  %v = fptrunc <2 x double> %x to <2 x float>
  %v.1 = fpext <2 x float> %v to <2 x double>
  %v.2 = fptosi <2 x double> %v.1 to <2 x i32>
  %v.3 = sitofp <2 x i32> %v.2 to <2 x double>
  %v.4 = fptoui <2 x double> %v.3 to <2 x i16>
  %v.5 = uitofp <2 x i16> %v.4 to <2 x half>
  %v.6 = bitcast <2 x half> %v.5 to <2 x i16>
  %v.7 = sext <2 x i16> %v.6 to <2 x i32>
  %v.8 = trunc <2 x i32> %v.7 to <2 x i8>
  %v.9 = zext <2 x i8> %v.8 to <2 x i64>
  %v.10 = extractelement <2 x i64> %v.9, i32 1
  %v.11 = ptrtoint ptr %p to i64
  %v.12 = add i64 %v.10, %v.11
  ret i64 %v.12
}

define internal void @memory(ptr noalias %p, i64 %i) #1 {
entry:
  %a = alloca float, i64 16, align 64
  %p.1 = getelementptr inbounds float, ptr %p, i64 %i
  %v = load <8 x float>, ptr %p.1, align 4
  %c = fcmp ogt <8 x float> %v, splat (float 0x0000000000000000)
  %p.2 = getelementptr inbounds i8, ptr %p, i64 32
  %v.1 = call <8 x float> @llvm.masked.load.v8f32.p0(ptr align 32 %p.2, <8 x i1> %c, <8 x float> splat (float 0x0000000000000000))
  %p.3 = getelementptr inbounds float, ptr %p, <8 x i64> <i64 0, i64 1, i64 2, i64 3, i64 4, i64 5, i64 6, i64 7>
  %v.2 = call <8 x float> @llvm.masked.gather.v8f32.v8p0(<8 x ptr> align 4 %p.3, <8 x i1> %c, <8 x float> %v.1)
  %v.3 = load float, ptr @table, align 4
  %v.4 = insertelement <8 x float> %v.2, float %v.3, i32 3
  %v.5 = shufflevector <8 x float> %v, <8 x float> %v.4, <8 x i32> <i32 0, i32 8, i32 1, i32 9, i32 2, i32 10, i32 poison, i32 11>
  call void @llvm.masked.store.v8f32.p0(<8 x float> %v.5, ptr align 4 %a, <8 x i1> %c)
  %v.6 = extractelement <8 x float> %v.4, i64 %i
  %v.7 = insertelement <8 x float> poison, float %v.6, i32 0
  %v.8 = shufflevector <8 x float> %v.7, <8 x float> poison, <8 x i32> zeroinitializer
  store <8 x float> %v.8, ptr %p, align 4, !nontemporal !0
  call void @free(ptr %a)
  ret void
}

define double @loop(i64 %n, ptr %g) #0 {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %v.3, %head ]
  %phi = phi double [ 0x0000000000000000, %entry ], [ %v.2, %head ]
  %v = call double @cos(double %phi)
  %v.1 = call double %g(i64 %i)
  %v.2 = fadd double %v, %v.1
  %v.3 = add nsw i64 %i, 1
  %c = icmp slt i64 %v.3, %n
  br i1 %c, label %head, label %done, !llvm.loop !1
done:
  %v.4 = insertelement <4 x double> poison, double %v.2, i32 0
  %v.5 = shufflevector <4 x double> %v.4, <4 x double> poison, <4 x i32> zeroinitializer
  %v.6 = call double @llvm.vector.reduce.fadd.v4f64(double %v.2, <4 x double> %v.5)
  ret double %v.6
}

attributes #0 = { nounwind }
attributes #1 = { nounwind "min-legal-vector-width"="512" }

!0 = !{i32 1}
!1 = distinct !{!1, !"llvm.loop.unroll.disable"}
