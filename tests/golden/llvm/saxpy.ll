source_filename = "saxpy"

define internal void @nest_saxpy(ptr noalias readonly %buffers, i64 %begin, i64 %end) #0 {
entry:
  %x = load ptr, ptr %buffers, align 8
  %p = getelementptr inbounds ptr, ptr %buffers, i64 1
  %y = load ptr, ptr %p, align 8
  %p.1 = getelementptr inbounds ptr, ptr %buffers, i64 2
  %r = load ptr, ptr %p.1, align 8
  br label %i.loop
i.loop:
  %i = phi i64 [ 0, %entry ], [ %v.5, %i.loop ]
  %v = mul nsw i64 %i, 64
  %p.2 = getelementptr inbounds i8, ptr %x, i64 %v
  %v.1 = load <16 x float>, ptr %p.2, align 4
  %v.2 = fmul <16 x float> splat (float 0x4004000000000000), %v.1
  %p.3 = getelementptr inbounds i8, ptr %y, i64 %v
  %v.3 = load <16 x float>, ptr %p.3, align 4
  %v.4 = fadd <16 x float> %v.2, %v.3
  %p.4 = getelementptr inbounds i8, ptr %r, i64 %v
  store <16 x float> %v.4, ptr %p.4, align 4
  %v.5 = add nuw nsw i64 %i, 1
  %c = icmp slt i64 %v.5, 4
  br i1 %c, label %i.loop, label %i.end
i.end:
  ret void
}

define void @run(ptr %buffers) #1 {
entry:
  call void @nest_saxpy(ptr %buffers, i64 0, i64 1)
  ret void
}

attributes #0 = { nounwind "min-legal-vector-width"="512" }
attributes #1 = { nounwind }
