source_filename = "row_sum"

define internal void @nest_row_sum(ptr noalias readonly %buffers, i64 %begin, i64 %end) #0 {
entry:
  %x = load ptr, ptr %buffers, align 8
  %p = getelementptr inbounds ptr, ptr %buffers, i64 1
  %r = load ptr, ptr %p, align 8
  %c = icmp slt i64 %begin, %end
  br i1 %c, label %work, label %done
work:
  br label %i.loop
i.loop:
  %i = phi i64 [ %begin, %work ], [ %v.19, %k.end ]
  %v = mul nsw i64 %i, 256
  %p.1 = getelementptr inbounds i8, ptr %x, i64 %v
  br label %k.loop
k.loop:
  %k = phi i64 [ 0, %i.loop ], [ %v.4, %k.loop ]
  %partial = phi <16 x float> [ splat (float 0x0000000000000000), %i.loop ], [ %v.3, %k.loop ]
  %v.1 = mul nsw i64 %k, 64
  %p.2 = getelementptr inbounds i8, ptr %p.1, i64 %v.1
  %v.2 = load <16 x float>, ptr %p.2, align 4
  %v.3 = fadd <16 x float> %partial, %v.2
  %v.4 = add nuw nsw i64 %k, 1
  %c.1 = icmp slt i64 %v.4, 4
  br i1 %c.1, label %k.loop, label %k.end
k.end:
  %v.5 = shufflevector <16 x float> %v.3, <16 x float> poison, <8 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7>
  %v.6 = shufflevector <16 x float> %v.3, <16 x float> poison, <8 x i32> <i32 8, i32 9, i32 10, i32 11, i32 12, i32 13, i32 14, i32 15>
  %v.7 = fadd <8 x float> %v.5, %v.6
  %v.8 = shufflevector <8 x float> %v.7, <8 x float> poison, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  %v.9 = shufflevector <8 x float> %v.7, <8 x float> poison, <4 x i32> <i32 4, i32 5, i32 6, i32 7>
  %v.10 = fadd <4 x float> %v.8, %v.9
  %v.11 = shufflevector <4 x float> %v.10, <4 x float> poison, <2 x i32> <i32 0, i32 1>
  %v.12 = shufflevector <4 x float> %v.10, <4 x float> poison, <2 x i32> <i32 2, i32 3>
  %v.13 = fadd <2 x float> %v.11, %v.12
  %v.14 = extractelement <2 x float> %v.13, i32 0
  %v.15 = extractelement <2 x float> %v.13, i32 1
  %v.16 = fadd float %v.14, %v.15
  %v.17 = fadd float 0x0000000000000000, %v.16
  %v.18 = mul nsw i64 %i, 4
  %p.3 = getelementptr inbounds i8, ptr %r, i64 %v.18
  store float %v.17, ptr %p.3, align 4
  %v.19 = add nuw nsw i64 %i, 1
  %c.2 = icmp slt i64 %v.19, %end
  br i1 %c.2, label %i.loop, label %i.end
i.end:
  br label %done
done:
  ret void
}

define void @run(ptr %buffers) #1 {
entry:
  call void @nest_row_sum(ptr %buffers, i64 0, i64 5)
  ret void
}

attributes #0 = { nounwind "min-legal-vector-width"="512" }
attributes #1 = { nounwind }
