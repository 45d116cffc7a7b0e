source_filename = "matmul"

declare <16 x float> @llvm.fmuladd.v16f32(<16 x float>, <16 x float>, <16 x float>)

define internal void @nest_matmul(ptr noalias readonly %buffers, i64 %begin, i64 %end) #0 {
entry:
  %a = load ptr, ptr %buffers, align 8
  %p = getelementptr inbounds ptr, ptr %buffers, i64 1
  %b = load ptr, ptr %p, align 8
  %p.1 = getelementptr inbounds ptr, ptr %buffers, i64 2
  %c = load ptr, ptr %p.1, align 8
  %c.1 = icmp slt i64 %begin, %end
  br i1 %c.1, label %work, label %done
work:
  br label %i.loop
i.loop:
  %i = phi i64 [ %begin, %work ], [ %v.39, %jo.end ]
  %v = mul nsw i64 %i, 960
  %p.2 = getelementptr inbounds i8, ptr %a, i64 %v
  %v.37 = mul nsw i64 %i, 1536
  %p.12 = getelementptr inbounds i8, ptr %c, i64 %v.37
  br label %jo.loop
jo.loop:
  %jo = phi i64 [ 0, %i.loop ], [ %v.38, %k.end ]
  %v.3 = mul nsw i64 %jo, 128
  %p.4 = getelementptr inbounds i8, ptr %b, i64 %v.3
  br label %k.loop
k.loop:
  %k = phi i64 [ 0, %jo.loop ], [ %v.36, %k.loop ]
  %acc = phi <16 x float> [ splat (float 0x0000000000000000), %jo.loop ], [ %v.8, %k.loop ]
  %acc.1 = phi <16 x float> [ splat (float 0x0000000000000000), %jo.loop ], [ %v.10, %k.loop ]
  %acc.2 = phi <16 x float> [ splat (float 0x0000000000000000), %jo.loop ], [ %v.14, %k.loop ]
  %acc.3 = phi <16 x float> [ splat (float 0x0000000000000000), %jo.loop ], [ %v.15, %k.loop ]
  %acc.4 = phi <16 x float> [ splat (float 0x0000000000000000), %jo.loop ], [ %v.19, %k.loop ]
  %acc.5 = phi <16 x float> [ splat (float 0x0000000000000000), %jo.loop ], [ %v.20, %k.loop ]
  %acc.6 = phi <16 x float> [ splat (float 0x0000000000000000), %jo.loop ], [ %v.24, %k.loop ]
  %acc.7 = phi <16 x float> [ splat (float 0x0000000000000000), %jo.loop ], [ %v.25, %k.loop ]
  %acc.8 = phi <16 x float> [ splat (float 0x0000000000000000), %jo.loop ], [ %v.29, %k.loop ]
  %acc.9 = phi <16 x float> [ splat (float 0x0000000000000000), %jo.loop ], [ %v.30, %k.loop ]
  %acc.10 = phi <16 x float> [ splat (float 0x0000000000000000), %jo.loop ], [ %v.34, %k.loop ]
  %acc.11 = phi <16 x float> [ splat (float 0x0000000000000000), %jo.loop ], [ %v.35, %k.loop ]
  %v.1 = mul nsw i64 %k, 4
  %p.3 = getelementptr inbounds i8, ptr %p.2, i64 %v.1
  %v.2 = load float, ptr %p.3, align 4
  %v.4 = mul nsw i64 %k, 256
  %p.5 = getelementptr inbounds i8, ptr %p.4, i64 %v.4
  %v.5 = load <16 x float>, ptr %p.5, align 4
  %v.6 = insertelement <16 x float> poison, float %v.2, i32 0
  %v.7 = shufflevector <16 x float> %v.6, <16 x float> poison, <16 x i32> zeroinitializer
  %v.8 = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %v.7, <16 x float> %v.5, <16 x float> %acc)
  %p.6 = getelementptr inbounds i8, ptr %p.5, i64 64
  %v.9 = load <16 x float>, ptr %p.6, align 4
  %v.10 = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %v.7, <16 x float> %v.9, <16 x float> %acc.1)
  %p.7 = getelementptr inbounds i8, ptr %p.3, i64 160
  %v.11 = load float, ptr %p.7, align 4
  %v.12 = insertelement <16 x float> poison, float %v.11, i32 0
  %v.13 = shufflevector <16 x float> %v.12, <16 x float> poison, <16 x i32> zeroinitializer
  %v.14 = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %v.13, <16 x float> %v.5, <16 x float> %acc.2)
  %v.15 = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %v.13, <16 x float> %v.9, <16 x float> %acc.3)
  %p.8 = getelementptr inbounds i8, ptr %p.3, i64 320
  %v.16 = load float, ptr %p.8, align 4
  %v.17 = insertelement <16 x float> poison, float %v.16, i32 0
  %v.18 = shufflevector <16 x float> %v.17, <16 x float> poison, <16 x i32> zeroinitializer
  %v.19 = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %v.18, <16 x float> %v.5, <16 x float> %acc.4)
  %v.20 = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %v.18, <16 x float> %v.9, <16 x float> %acc.5)
  %p.9 = getelementptr inbounds i8, ptr %p.3, i64 480
  %v.21 = load float, ptr %p.9, align 4
  %v.22 = insertelement <16 x float> poison, float %v.21, i32 0
  %v.23 = shufflevector <16 x float> %v.22, <16 x float> poison, <16 x i32> zeroinitializer
  %v.24 = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %v.23, <16 x float> %v.5, <16 x float> %acc.6)
  %v.25 = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %v.23, <16 x float> %v.9, <16 x float> %acc.7)
  %p.10 = getelementptr inbounds i8, ptr %p.3, i64 640
  %v.26 = load float, ptr %p.10, align 4
  %v.27 = insertelement <16 x float> poison, float %v.26, i32 0
  %v.28 = shufflevector <16 x float> %v.27, <16 x float> poison, <16 x i32> zeroinitializer
  %v.29 = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %v.28, <16 x float> %v.5, <16 x float> %acc.8)
  %v.30 = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %v.28, <16 x float> %v.9, <16 x float> %acc.9)
  %p.11 = getelementptr inbounds i8, ptr %p.3, i64 800
  %v.31 = load float, ptr %p.11, align 4
  %v.32 = insertelement <16 x float> poison, float %v.31, i32 0
  %v.33 = shufflevector <16 x float> %v.32, <16 x float> poison, <16 x i32> zeroinitializer
  %v.34 = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %v.33, <16 x float> %v.5, <16 x float> %acc.10)
  %v.35 = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %v.33, <16 x float> %v.9, <16 x float> %acc.11)
  %v.36 = add nuw nsw i64 %k, 1
  %c.2 = icmp slt i64 %v.36, 40
  br i1 %c.2, label %k.loop, label %k.end
k.end:
  %p.13 = getelementptr inbounds i8, ptr %p.12, i64 %v.3
  store <16 x float> %v.8, ptr %p.13, align 4
  %p.14 = getelementptr inbounds i8, ptr %p.13, i64 64
  store <16 x float> %v.10, ptr %p.14, align 4
  %p.15 = getelementptr inbounds i8, ptr %p.13, i64 256
  store <16 x float> %v.14, ptr %p.15, align 4
  %p.16 = getelementptr inbounds i8, ptr %p.13, i64 320
  store <16 x float> %v.15, ptr %p.16, align 4
  %p.17 = getelementptr inbounds i8, ptr %p.13, i64 512
  store <16 x float> %v.19, ptr %p.17, align 4
  %p.18 = getelementptr inbounds i8, ptr %p.13, i64 576
  store <16 x float> %v.20, ptr %p.18, align 4
  %p.19 = getelementptr inbounds i8, ptr %p.13, i64 768
  store <16 x float> %v.24, ptr %p.19, align 4
  %p.20 = getelementptr inbounds i8, ptr %p.13, i64 832
  store <16 x float> %v.25, ptr %p.20, align 4
  %p.21 = getelementptr inbounds i8, ptr %p.13, i64 1024
  store <16 x float> %v.29, ptr %p.21, align 4
  %p.22 = getelementptr inbounds i8, ptr %p.13, i64 1088
  store <16 x float> %v.30, ptr %p.22, align 4
  %p.23 = getelementptr inbounds i8, ptr %p.13, i64 1280
  store <16 x float> %v.34, ptr %p.23, align 4
  %p.24 = getelementptr inbounds i8, ptr %p.13, i64 1344
  store <16 x float> %v.35, ptr %p.24, align 4
  %v.38 = add nuw nsw i64 %jo, 1
  %c.3 = icmp slt i64 %v.38, 2
  br i1 %c.3, label %jo.loop, label %jo.end
jo.end:
  %v.39 = add nuw nsw i64 %i, 1
  %c.4 = icmp slt i64 %v.39, %end
  br i1 %c.4, label %i.loop, label %i.end
i.end:
  br label %done
done:
  ret void
}

define void @run(ptr %buffers) #1 {
entry:
  call void @nest_matmul(ptr %buffers, i64 0, i64 2)
  ret void
}

attributes #0 = { nounwind "min-legal-vector-width"="512" }
attributes #1 = { nounwind }
