%struct.Sample = type { i32, i16, i32 }
define void @sift_down(ptr %0, i64 %1, i64 %2, ptr %3) {
  %5 = alloca ptr
  %6 = alloca i64
  %7 = alloca i64
  %8 = alloca ptr
  %9 = alloca %struct.Sample
  %10 = alloca i64
  %11 = alloca i32
  store ptr %0, ptr %5
  store i64 %1, ptr %6
  store i64 %2, ptr %7
  store ptr %3, ptr %8
  call void @llvm.lifetime.start.p0(ptr %9)
  %12 = load ptr, ptr %5
  %13 = load i64, ptr %6
  %14 = getelementptr inbounds nuw %struct.Sample, ptr %12, i64 %13
  call void @llvm.memcpy.p0.p0.i64(ptr %9, ptr %14, i64 12, i1 false)
  call void @llvm.lifetime.start.p0(ptr %10)
  br label %15
15:
  %16 = load i64, ptr %6
  %17 = mul i64 2, %16
  %18 = add i64 %17, 1
  store i64 %18, ptr %10
  %19 = load i64, ptr %7
  %20 = icmp ult i64 %18, %19
  br i1 %20, label %22, label %21
21:
  store i32 2, ptr %11
  br label %58
22:
  %23 = load i64, ptr %10
  %24 = add i64 %23, 1
  %25 = load i64, ptr %7
  %26 = icmp ult i64 %24, %25
  br i1 %26, label %27, label %41
27:
  %28 = load ptr, ptr %8
  %29 = load ptr, ptr %5
  %30 = load i64, ptr %10
  %31 = getelementptr inbounds nuw %struct.Sample, ptr %29, i64 %30
  %32 = load ptr, ptr %5
  %33 = load i64, ptr %10
  %34 = add i64 %33, 1
  %35 = getelementptr inbounds nuw %struct.Sample, ptr %32, i64 %34
  %36 = call i32 %28(ptr %31, ptr %35)
  %37 = icmp slt i32 %36, 0
  br i1 %37, label %38, label %41
38:
  %39 = load i64, ptr %10
  %40 = add i64 %39, 1
  store i64 %40, ptr %10
  br label %41
41:
  %42 = load ptr, ptr %8
  %43 = load ptr, ptr %5
  %44 = load i64, ptr %10
  %45 = getelementptr inbounds nuw %struct.Sample, ptr %43, i64 %44
  %46 = call i32 %42(ptr %9, ptr %45)
  %47 = icmp sge i32 %46, 0
  br i1 %47, label %48, label %49
48:
  store i32 2, ptr %11
  br label %58
49:
  %50 = load ptr, ptr %5
  %51 = load i64, ptr %6
  %52 = getelementptr inbounds nuw %struct.Sample, ptr %50, i64 %51
  %53 = load ptr, ptr %5
  %54 = load i64, ptr %10
  %55 = getelementptr inbounds nuw %struct.Sample, ptr %53, i64 %54
  call void @llvm.memcpy.p0.p0.i64(ptr %52, ptr %55, i64 12, i1 false)
  br label %56
56:
  %57 = load i64, ptr %10
  store i64 %57, ptr %6
  br label %15
58:
  call void @llvm.lifetime.end.p0(ptr %10)
  br label %59
59:
  %60 = load ptr, ptr %5
  %61 = load i64, ptr %6
  %62 = getelementptr inbounds nuw %struct.Sample, ptr %60, i64 %61
  call void @llvm.memcpy.p0.p0.i64(ptr %62, ptr %9, i64 12, i1 false)
  call void @llvm.lifetime.end.p0(ptr %9)
  ret void
}
